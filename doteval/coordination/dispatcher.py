"""Dispatch: what is pending in the result store goes to the queue, and evaluations come to their end.

The submitter does it while it follows, and worker processes do it in its place when it has left.
Any number of processes may do it at once: a cursor in the store, moved by compare-and-swap, says
up to which row tasks have been published, so that none is published twice. Publishing again from
the first row begins a new round, which the cursor counts too: else one process could not tell that
another has just done so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from doteval.broker.fair_queues import FAIR_QUEUES, Priority, fair_queues_of, priority_of
from doteval.broker.messages import RowTask
from doteval.concurrency import ASYNC_CONCURRENCY
from doteval.coordination.budget_guard import used_up
from doteval.coordination.lost_rows import LostRows, have_reported, without_held
from doteval.coordination.task_sizing import TaskSize, most_unknown, tapered, task_size
from doteval.core.budgets import BudgetStop
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.states import EvaluationEnd, LoadFailureKind, WorkerPhase
from doteval.store import LoadFailure, Store, WorkerState, held_by

# Messages that may wait in the queue: enough for any number of worker processes, and a bound for
# the broker's memory (1.8 KB a message) however large the dataset is.
MOST_QUEUED = 5_000
# Row tasks published at a time, between two looks at the cursor.
_PUBLISHED_AT_ONCE = 200
# The cursor in the store is one number of three digits: the round, the lane (from 1 on; 0 is none yet),
# and the index of a row.
_INDEXES = 1 << 40
_ROUND = _INDEXES * (FAIR_QUEUES + 1)


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """`rows_per_task`: None chooses by the number of rows and the rows that can be in flight (`slots`).

    `queues` are those of evaluations, by uid, whatever the store says: of a submitter who knows better. `total` is how
    many rows are to be run, if that is not all of an evaluation.
    """

    rows_per_task: int | None = None
    slots: int = 20
    queues: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None


class TaskQueue(Protocol):
    """Where row tasks go: what a dispatcher needs of a `doteval.broker.publisher.Publisher`."""

    queue: str

    @property
    def is_pull_based(self) -> bool:
        """Whether worker processes ask for each message, when they want it; else they are sent what they may hold."""
        ...

    def publish(
        self,
        tasks: Iterable[RowTask],
        *,
        experiment: str,
        evaluation: str,
        fair_queue: int = 0,
        queue: str | None = None,
    ) -> int: ...
    def queued(self, fair_queue: int | None = None, *, queue: str | None = None) -> int: ...


class Dispatcher:
    """Publishes the pending rows of evaluations and notices when they are all done.

    Each evaluation has its queue; the publisher's own is for those whose queue nobody knows. `clock` gives
    seconds that only ever grow.
    """

    def __init__(
        self,
        store: Store,
        publisher: TaskQueue,
        options: DispatchOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._options = options or DispatchOptions()
        self._clock = clock
        self._lost_rows = LostRows(store, self._concerned, clock)
        # By evaluation: when its budget was first seen used up.
        self._used_up: dict[int, float] = {}

    def queue_of(self, evaluation: Evaluation) -> str:
        """The queue that row tasks of an evaluation travel on."""
        return self._options.queues.get(evaluation.uid) or evaluation.queue or self._publisher.queue

    def publish(self, evaluation: Evaluation) -> int:
        """Publish row tasks for pending rows beyond the cursor, as many as the queue has room for.

        Nothing is published while the evaluation's budget is used up.
        """
        if self._budget_stop(evaluation):
            return 0
        cursor = self._store.evaluations.published(evaluation.id)
        size, most = self._size(evaluation, cursor)
        room = min(most, MOST_QUEUED - self._queued(evaluation, cursor))
        published = 0
        while published < room:
            count, more = self._publish_some(evaluation, size, min(_PUBLISHED_AT_ONCE, room - published))
            published += count
            if not more:
                break
        return published

    def restart(self, evaluation: Evaluation, *, was_completed: bool = False, priority: Priority | None = None) -> None:
        """Publish from the first pending row again, if nothing of an earlier submission is queued.

        Otherwise what is pending is published when its lane has drained. Of an evaluation that
        `was_completed` nothing can be queued, whatever else is. It gets the lane of its `priority` (None: the
        one that it had) with the fewest other experiments on it.
        """
        cursor = self._store.evaluations.published(evaluation.id)
        if not cursor:
            # Nothing of it has been published ever: it stays the first round.
            lane = self._choose_lane(evaluation, priority or Priority.NORMAL)
            self._store.evaluations.advance_published(evaluation.id, cursor, _digit(lane))
        elif was_completed or not self._queued(evaluation, cursor):
            lane = self._choose_lane(evaluation, priority or priority_of(_lane(cursor)))
            self._begin_round(evaluation, cursor, lane)

    def settle(self, evaluation: Evaluation) -> Evaluation:
        """Bring an evaluation forward: publish, publish again what was lost, complete it, or stop it at its budget.

        Returns the evaluation as it is now.
        """
        current = self.conclude(evaluation)
        if current.status is not EvaluationStatus.RUNNING:
            return current
        if verdict := self._load_verdict(current):
            status, cause, reason = verdict
            self._store.evaluations.set_status(
                current.id, status, reason, end_cause=cause, only_from=EvaluationStatus.RUNNING
            )
            return self._store.evaluations.by_uid(evaluation.uid)
        if stop := self._budget_stop(current):
            return self._stop(current, stop)
        self._used_up.pop(current.id, None)
        # To find that nothing is pending among rows that are done, all of them would be read.
        if current.counts.pending:
            self.publish(current)
            self._publish_lost(current)
        return current

    def conclude(self, evaluation: Evaluation) -> Evaluation:
        """Complete an evaluation if all its rows are done; publish nothing. Returns the evaluation as it is now."""
        current = self._store.evaluations.by_uid(evaluation.uid)
        if current.status is not EvaluationStatus.RUNNING or current.counts.pending:
            return current
        if self._store.rows.dataset_state(current.id).complete:
            self._store.evaluations.complete(current.id)
        return self._store.evaluations.by_uid(evaluation.uid)

    def _queued(self, evaluation: Evaluation, cursor: int) -> int:
        """How many messages wait where those of the evaluation do."""
        return self._publisher.queued(_lane(cursor), queue=self.queue_of(evaluation))

    def _budget_stop(self, evaluation: Evaluation) -> BudgetStop | None:
        """Why no further row of it may begin by its budget, None if one may."""
        return used_up(self._store, evaluation.experiment, evaluation.config.budget)

    def _stop(self, evaluation: Evaluation, stop: BudgetStop) -> Evaluation:
        """End an evaluation whose budget is used up, once its dataset is read and its rows in flight have ended."""
        since = self._used_up.setdefault(evaluation.id, self._clock())
        waited = self._clock() - since
        # Those that hold none of its rows must have said so since: before, they may have begun some.
        free = all(
            worker.age < waited and not any(held.evaluation_uid == evaluation.uid for held in worker.holding)
            for worker in self._concerned(evaluation)
        )
        if not free or not self._store.rows.dataset_state(evaluation.id).complete:
            return evaluation
        self._used_up.pop(evaluation.id)
        self._store.evaluations.set_status(
            evaluation.id,
            EvaluationStatus.CANCELLED,
            stop.message,
            end_cause=stop.cause,
            only_from=EvaluationStatus.RUNNING,
        )
        return self._store.evaluations.by_uid(evaluation.uid)

    def _size(self, evaluation: Evaluation, cursor: int) -> tuple[TaskSize, int]:
        """How large the row tasks of an evaluation are, and how many may be published now, whatever waits."""
        if self._options.rows_per_task is not None:
            return TaskSize(self._options.rows_per_task, self._options.rows_per_task), MOST_QUEUED
        seconds = self._store.results.mean_seconds(evaluation.id)
        slots = self._options.slots
        told = [worker.info.concurrency for worker in self._serving(evaluation)]
        at_once = [evaluation.config.concurrency_in(each) or ASYNC_CONCURRENCY for each in told]
        size = task_size(
            self._options.total or evaluation.counts.total,
            seconds,
            slots=slots,
            at_once=at_once,
            asked=self._publisher.is_pull_based,
            batch=evaluation.config.batch_size,
        )
        if seconds is not None:
            return size, MOST_QUEUED
        published_before = -(-published_up_to(cursor) // size.rows)
        return size, min(_PUBLISHED_AT_ONCE, most_unknown(size, slots=slots, at_once=at_once)) - published_before

    def _publish_some(self, evaluation: Evaluation, size: TaskSize, most: int) -> tuple[int, bool]:
        """Publish up to `most` row tasks, or what is left. Returns how many, and whether there may be more."""
        cursor = self._store.evaluations.published(evaluation.id)
        ranges = list(self._store.rows.pending_ranges(evaluation.id, size.rows, first=cursor % _INDEXES, limit=most))
        if not ranges:
            return 0, False
        more = len(ranges) == most
        if not more and size.last < size.rows and self._store.rows.dataset_state(evaluation.id).complete:
            ranges = tapered(ranges, size, len(self._serving(evaluation)))
        # First the cursor, then the messages: if this process dies in between, the rows are found
        # when the queue has drained; the other way round they would run twice.
        moved = cursor - cursor % _INDEXES + ranges[-1].last + 1
        if not self._store.evaluations.advance_published(evaluation.id, cursor, moved):
            return 0, True
        live = self._concerned(evaluation)
        if cursor >= _ROUND and not have_reported(live):
            # Rows that were published before may be in hands that cannot tell. If not, they are found
            # when the queue has drained once more.
            return 0, False
        free = without_held(ranges, held_by(live, evaluation.uid))
        self._publisher.publish(
            (RowTask(evaluation.uid, each.first, each.last) for each in free),
            experiment=evaluation.experiment.name,
            evaluation=evaluation.name,
            fair_queue=_lane(cursor),
            queue=self.queue_of(evaluation),
        )
        return len(free), more

    def _choose_lane(self, evaluation: Evaluation, priority: Priority) -> int:
        """The lane of the queue that the experiment is on, else the one with the fewest other experiments."""
        queue = self.queue_of(evaluation)
        experiments: dict[int, set[int]] = {lane: set() for lane in fair_queues_of(priority)}
        for other in self._store.evaluations.running():
            if other.id == evaluation.id or self.queue_of(other) != queue:
                continue
            cursor = self._store.evaluations.published(other.id)
            if cursor and _lane(cursor) in experiments:
                experiments[_lane(cursor)].add(other.experiment.id)
        mine = [lane for lane, others in experiments.items() if evaluation.experiment.id in others]
        # Of an experiment that is over, messages may be left.
        return (
            mine[0]
            if mine
            else min(experiments, key=lambda lane: (len(experiments[lane]), self._publisher.queued(lane, queue=queue)))
        )

    def _publish_lost(self, evaluation: Evaluation) -> None:
        """Publish all pending rows again if some were lost."""
        cursor = self._store.evaluations.published(evaluation.id)
        lost = self._lost_rows.detect(evaluation, cursor, lambda: self._queued(evaluation, cursor))
        if lost and self._begin_round(evaluation, cursor):
            self.publish(evaluation)
            self._lost_rows.published(evaluation, self._store.evaluations.published(evaluation.id))

    def _begin_round(self, evaluation: Evaluation, cursor: int, lane: int | None = None) -> bool:
        """Put the cursor back to the first row, on another lane if one is given, unless it has moved meanwhile."""
        begun = cursor - cursor % _ROUND + _ROUND + _digit(_lane(cursor) if lane is None else lane)
        return self._store.evaluations.advance_published(evaluation.id, cursor, begun)

    def _serving(self, evaluation: Evaluation) -> list[WorkerState]:
        """The live worker processes that take row tasks from the evaluation's queue."""
        queue = self.queue_of(evaluation)
        return [worker for worker in self._store.workers.live() if queue in worker.info.queues]

    def _concerned(self, evaluation: Evaluation) -> list[WorkerState]:
        """Those, and live ones that hold rows of it from the time when it was on another queue."""
        queue = self.queue_of(evaluation)
        return [
            worker
            for worker in self._store.workers.live()
            if queue in worker.info.queues or any(held.evaluation_uid == evaluation.uid for held in worker.holding)
        ]

    def _load_verdict(self, evaluation: Evaluation) -> tuple[EvaluationStatus, EvaluationEnd, str] | None:
        """How the evaluation ends if no live worker process can load its fixtures, else None.

        One that could not leaves, and another takes its place: were that one always waited for, processes that
        take turns in loading for minutes and failing would go on for ever.
        """
        failures = self._store.loads.failures(evaluation.id)
        if not failures:
            return None
        live = self._serving(evaluation)
        failed_on = {failure.worker_id for failure in failures}
        hopeful = [worker for worker in live if worker.id not in failed_on and not _follows_failures(worker, failures)]
        if not live or hopeful:
            return None
        # One that has stored results can load the fixtures, whatever happened to those before it.
        if not self._store.results.writers(evaluation.id).isdisjoint({worker.id for worker in live} - failed_on):
            return None
        last = failures[-1]
        if last.kind is LoadFailureKind.SKIPPED:
            return EvaluationStatus.COMPLETED, EvaluationEnd.SKIPPED, f"skipped: {last.error}"
        reason = f"{last.fixture} failed on every worker process: {last.error}"
        return EvaluationStatus.FAILED, EvaluationEnd.FIXTURES_FAILED, reason


def _follows_failures(worker: WorkerState, failures: Sequence[LoadFailure]) -> bool:
    """Whether a worker process is in the place of others that could not load, and nothing speaks for it.

    One failure says enough of one that still loads: who comes after a single worker process that fails is not
    waited for either. One that is ready may be about to load what is narrower than the session; and one whose
    predecessor had other files may have the right ones: these get a second chance.
    """
    before = [each for each in failures if each.service == worker.info.service and each.failed_at <= worker.started_at]
    once = worker.state is WorkerPhase.LOADING and bool(before) and before[-1].kind is not LoadFailureKind.OTHER_CODE
    return len(before) >= (1 if once else 2)


def published_up_to(cursor: int) -> int:
    """The index of the first row that is not published yet, of a publish cursor as the store keeps it."""
    return cursor % _INDEXES


def _lane(cursor: int) -> int:
    return max(0, cursor % _ROUND // _INDEXES - 1)


def _digit(lane: int) -> int:
    return (lane + 1) * _INDEXES

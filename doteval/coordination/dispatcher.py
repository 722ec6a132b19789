"""The dispatcher publishes pending rows of the result store as row tasks, and ends evaluations.

The submitter runs it while it follows; when the submitter has left, worker processes run it. Any number of processes
may do so at once: a publish cursor in the store, moved by compare-and-swap, says up to which row row tasks have been
published, so that none is published twice. Publishing from the first row again begins a new round. The cursor counts
rounds as well, so that a process notices when another one has just begun a round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from doteval.broker.fair_queues import Priority, fair_queues_of, priority_of
from doteval.broker.messages import RowTask
from doteval.concurrency import ASYNC_CONCURRENCY
from doteval.coordination.budget_guard import used_up
from doteval.coordination.load_verdict import Prospect, ending_of_failures, prospect
from doteval.coordination.lost_rows import LostRows, have_reported, without_held
from doteval.coordination.publish_cursor import (
    ROUND,
    as_digit,
    at_index,
    fair_queue_of,
    has_fair_queue,
    held_back,
    is_held_back,
    published_up_to,
)
from doteval.coordination.task_sizing import TaskSize, most_unknown, tapered, task_size
from doteval.core import clocks
from doteval.core.budgets import BudgetStop
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus
from doteval.store import RowRange, Store, WorkerState, held_by

# The most messages in a queue: enough for any number of worker processes, and a bound for the broker's memory
# (1.8 KB a message) however large the dataset is.
MOST_QUEUED = 5_000
# Row tasks published for one move of the cursor.
_PUBLISHED_AT_ONCE = 200
# What a row takes in batch mode until it waits for its first call.
_PARKED_ROW_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class DispatchOptions:
    """How a dispatcher publishes.

    rows_per_task: rows of a row task; None chooses by the number of rows and by `slots`
    slots: rows that can be in flight in all worker processes
    queues: the queue of an evaluation by its uid, in place of the one in the store
    total: how many rows are to be run, if not all rows of an evaluation
    """

    rows_per_task: int | None = None
    slots: int = 20
    queues: Mapping[str, str] = field(default_factory=dict)
    total: int | None = None


class TaskQueue(Protocol):
    """The queue that row tasks are published on: a part of `doteval.broker.publisher.Publisher`."""

    queue: str

    @property
    def is_pull_based(self) -> bool:
        """Whether worker processes ask for each message; otherwise the broker sends as many as they may hold."""
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
    """Publishes the pending rows of evaluations, publishes lost rows again, and ends evaluations.

    publisher: its own queue serves evaluations that name none
    clock: seconds that only ever grow
    """

    def __init__(
        self,
        store: Store,
        publisher: TaskQueue,
        options: DispatchOptions | None = None,
        *,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._options = options or DispatchOptions()
        self._clock = clock
        self._lost_rows = LostRows(store, self._possible_holders, clock)
        # By evaluation: when its budget was first seen used up.
        self._used_up: dict[int, float] = {}
        # By evaluation: the rows that were published although its rows are held back.
        self._samples: dict[int, Sequence[int]] = {}

    def queue_of(self, evaluation: Evaluation) -> str:
        """The queue of an evaluation's row tasks."""
        return self._options.queues.get(evaluation.uid) or evaluation.queue or self._publisher.queue

    def publish(self, evaluation: Evaluation) -> int:
        """Publish row tasks for pending rows beyond the cursor, as many as the queue has room for. Returns how many.

        Publishes nothing while the budget of the evaluation is used up.
        """
        if self._budget_stop(evaluation) and not evaluation.config.batch:
            return 0
        cursor = self._store.evaluations.published(evaluation.id)
        if is_held_back(cursor):
            return 0
        size, most = self._size(evaluation, cursor)
        room = min(most, MOST_QUEUED - self._queued(evaluation, cursor))
        published = 0
        while published < room:
            count, more = self._publish_some(evaluation, size, min(_PUBLISHED_AT_ONCE, room - published))
            published += count
            if not more:
                break
        return published

    def has_queued(self, evaluation: Evaluation) -> bool:
        """Whether messages wait in the fair queue of an evaluation."""
        return self._queued(evaluation, self._store.evaluations.published(evaluation.id)) > 0

    def publish_rows(self, evaluation: Evaluation, indexes: Iterable[int]) -> None:
        """Publish rows whatever the cursor says: the replies of their batch are there, or they are given back."""
        cursor = self._store.evaluations.published(evaluation.id)
        size, _ = self._size(evaluation, cursor)
        ranges: list[RowRange] = []
        for index in sorted(indexes):
            # Only what is side by side: rows between them may be on their way.
            last = ranges[-1] if ranges else None
            if last is not None and index == last.last + 1 and index - last.first < size.rows:
                ranges[-1] = RowRange(last.first, index)
            else:
                ranges.append(RowRange(index, index))
        self._publish(evaluation, cursor, ranges)

    def restart(
        self,
        evaluation: Evaluation,
        *,
        was_completed: bool = False,
        priority: Priority | None = None,
        hold_back: bool = False,
    ) -> None:
        """Publish from the first pending row again, unless messages of an earlier submission may be queued.

        In that case pending rows are published once their fair queue has drained. If the evaluation `was_completed`,
        none of its messages can be queued. It gets the fair queue of its `priority` (None: the priority that it had)
        with the fewest other experiments.

        hold_back: publish no row but by `publish_sample`, in whatever process, until `release`
        """
        cursor = self._store.evaluations.published(evaluation.id)
        if not cursor or (is_held_back(cursor) and not has_fair_queue(cursor)):
            # Nothing was ever published: this is still the first round.
            begun = as_digit(self._choose_fair_queue(evaluation, priority or Priority.NORMAL))
            begun = held_back(begun) if hold_back else begun
            self._store.evaluations.advance_published(evaluation.id, cursor, begun)
        elif hold_back:
            self._store.evaluations.advance_published(evaluation.id, cursor, held_back(cursor))
        elif was_completed or not self._queued(evaluation, cursor):
            self.release(evaluation, priority=priority)
        elif is_held_back(cursor):
            # A command that was killed has published some of the rows, which are found once the queue has drained.
            stored = self._store.rows.dataset_state(evaluation.id).rows
            self._store.evaluations.advance_published(evaluation.id, cursor, at_index(cursor, stored))

    def release(self, evaluation: Evaluation, *, priority: Priority | None = None) -> None:
        """Publish from the first pending row again: none of the evaluation's messages can be queued."""
        cursor = self._store.evaluations.published(evaluation.id)
        fair_queue = self._choose_fair_queue(evaluation, priority or priority_of(fair_queue_of(cursor)))
        self._samples.pop(evaluation.id, None)
        self._begin_round(evaluation, cursor, fair_queue)

    def publish_sample(self, evaluation: Evaluation, indexes: Sequence[int]) -> None:
        """Publish some rows of an evaluation whose rows are held back, and again those of them that are lost."""
        self._samples[evaluation.id] = indexes
        self.publish_rows(evaluation, indexes)

    def settle(self, evaluation: Evaluation) -> Evaluation:
        """Publish rows of an evaluation, publish lost rows again, and end it if it is complete or over its budget.

        Returns the evaluation as it is now.
        """
        current = self.conclude(evaluation)
        if current.status is not EvaluationStatus.RUNNING:
            return current
        judged = self.prospect(current)
        if judged is Prospect.NONE:
            verdict = ending_of_failures(self._store.loads.failures(current.id))
            self._store.evaluations.end(current.id, verdict, only_from=EvaluationStatus.RUNNING)
            return self._store.evaluations.by_uid(evaluation.uid)
        if (stop := self._budget_stop(current)) and not self._goes_on_in_batches(current):
            return self._stop(current, stop)
        self._used_up.pop(current.id, None)
        # Without pending rows, the search for them would read all rows of the evaluation.
        # Nor is anything published that all worker processes would refuse for the time being.
        if current.counts.pending and judged is not Prospect.AFTER_RELOAD:
            self.publish(current)
            self._publish_lost(current)
        return current

    def conclude(self, evaluation: Evaluation) -> Evaluation:
        """End an evaluation if all its rows have a result; publish nothing. Returns the evaluation as it is now."""
        current = self._store.evaluations.by_uid(evaluation.uid)
        if current.status is not EvaluationStatus.RUNNING or current.counts.pending:
            return current
        if self._store.rows.dataset_state(current.id).complete:
            self._store.evaluations.complete(current.id)
        return self._store.evaluations.by_uid(evaluation.uid)

    def _queued(self, evaluation: Evaluation, cursor: int) -> int:
        """How many messages wait in the fair queue of the evaluation."""
        return self._publisher.queued(fair_queue_of(cursor), queue=self.queue_of(evaluation))

    def _budget_stop(self, evaluation: Evaluation) -> BudgetStop | None:
        """Why the budget lets no further row begin, None if it does."""
        return used_up(self._store, evaluation.experiment, evaluation.config.budget)

    def _goes_on_in_batches(self, evaluation: Evaluation) -> bool:
        """Whether rows can still run whose calls are paid for: rows in batch mode send nothing themselves."""
        if not evaluation.config.batch:
            return False
        progress = self._store.batches.progress([evaluation.id])
        return progress.batches > 0 or evaluation.counts.pending > progress.waiting

    def _stop(self, evaluation: Evaluation, stop: BudgetStop) -> Evaluation:
        """Cancel an evaluation whose budget is used up, once its dataset is read and its rows in flight have ended."""
        since = self._used_up.setdefault(evaluation.id, self._clock())
        waited = self._clock() - since
        # A worker's report counts only if it is newer than the end of the budget: before, it may have begun rows.
        free = all(
            worker.age < waited and not any(held.evaluation_uid == evaluation.uid for held in worker.holding)
            for worker in self._possible_holders(evaluation)
        )
        if not free or not self._store.rows.dataset_state(evaluation.id).complete:
            return evaluation
        self._used_up.pop(evaluation.id)
        self._store.evaluations.end(evaluation.id, Ending.at_budget(stop), only_from=EvaluationStatus.RUNNING)
        return self._store.evaluations.by_uid(evaluation.uid)

    def _size(self, evaluation: Evaluation, cursor: int) -> tuple[TaskSize, int]:
        """The size of an evaluation's row tasks, and how many of them may be published now, however many wait."""
        if self._options.rows_per_task is not None:
            return TaskSize(self._options.rows_per_task, self._options.rows_per_task), MOST_QUEUED
        seconds = self._store.results.mean_seconds(evaluation.id)
        if seconds is None and evaluation.config.batch:
            # No row ends before the first batch does, and those that wait are fast.
            seconds = _PARKED_ROW_SECONDS
        slots = self._options.slots
        at_once = self._at_once(evaluation)
        size = task_size(
            self._options.total or evaluation.counts.total,
            seconds,
            slots=slots,
            at_once=at_once,
            pull_based=self._publisher.is_pull_based,
            batch=evaluation.config.batch_size,
        )
        if seconds is not None:
            return size, MOST_QUEUED
        published_before = -(-published_up_to(cursor) // size.rows)
        return size, min(_PUBLISHED_AT_ONCE, most_unknown(size, slots=slots, at_once=at_once)) - published_before

    def _publish_some(self, evaluation: Evaluation, size: TaskSize, most: int) -> tuple[int, bool]:
        """Publish up to `most` row tasks. Returns how many, and whether there may be more."""
        cursor = self._store.evaluations.published(evaluation.id)
        ranges = list(
            self._store.rows.pending_ranges(evaluation.id, size.rows, first=published_up_to(cursor), limit=most)
        )
        if not ranges:
            return 0, False
        more = len(ranges) == most
        if not more and size.last < size.rows and self._store.rows.dataset_state(evaluation.id).complete:
            ranges = tapered(ranges, size, len(self._serving(evaluation)))
        # The cursor moves before the messages are sent: if this process dies in between, the rows are found once the
        # queue has drained. In the other order they would run twice.
        moved = at_index(cursor, ranges[-1].last + 1)
        if not self._store.evaluations.advance_published(evaluation.id, cursor, moved):
            return 0, True
        live = self._possible_holders(evaluation)
        if cursor >= ROUND and not have_reported(live):
            # A worker whose heartbeat is late may still hold these rows. If it does not, they are found once the queue
            # has drained again.
            return 0, False
        free = without_held(ranges, held_by(live, evaluation.uid))
        self._publish(evaluation, cursor, free)
        return len(free), more

    def _publish(self, evaluation: Evaluation, cursor: int, ranges: Iterable[RowRange]) -> None:
        """Publish a row task for each range, on the fair queue that `cursor` names."""
        self._publisher.publish(
            (RowTask(evaluation.uid, each.first, each.last) for each in ranges),
            experiment=evaluation.experiment.name,
            evaluation=evaluation.name,
            fair_queue=fair_queue_of(cursor),
            queue=self.queue_of(evaluation),
        )

    def _choose_fair_queue(self, evaluation: Evaluation, priority: Priority) -> int:
        """The fair queue that the experiment uses already, else the one with the fewest other experiments."""
        queue = self.queue_of(evaluation)
        experiments: dict[int, set[int]] = {fair_queue: set() for fair_queue in fair_queues_of(priority)}
        for other in self._store.evaluations.running():
            if other.id == evaluation.id or self.queue_of(other) != queue:
                continue
            cursor = self._store.evaluations.published(other.id)
            if cursor and fair_queue_of(cursor) in experiments:
                experiments[fair_queue_of(cursor)].add(other.experiment.id)
        mine = [number for number, others in experiments.items() if evaluation.experiment.id in others]
        if mine:
            return mine[0]
        # Messages of an experiment that has ended may be left in a fair queue.
        return min(
            experiments, key=lambda number: (len(experiments[number]), self._publisher.queued(number, queue=queue))
        )

    def _publish_lost(self, evaluation: Evaluation) -> None:
        """Publish all pending rows again if some were lost; of an evaluation that is held back, those of the sample."""
        cursor = self._store.evaluations.published(evaluation.id)
        if is_held_back(cursor):
            sample = self._samples.get(evaluation.id, ())
            self.publish_rows(
                evaluation, self._lost_rows.lost_among(sample, evaluation, lambda: self._queued(evaluation, cursor))
            )
            return
        lost = self._lost_rows.detect(evaluation, cursor, lambda: self._queued(evaluation, cursor))
        if lost and self._begin_round(evaluation, cursor):
            self.publish(evaluation)
            self._lost_rows.published(evaluation, self._store.evaluations.published(evaluation.id))

    def _begin_round(self, evaluation: Evaluation, cursor: int, fair_queue: int | None = None) -> bool:
        """Set the cursor back to the first row, on another fair queue if one is given. False if it moved meanwhile."""
        begun = cursor - cursor % ROUND + ROUND + as_digit(fair_queue_of(cursor) if fair_queue is None else fair_queue)
        return self._store.evaluations.advance_published(evaluation.id, cursor, begun)

    def _serving(self, evaluation: Evaluation) -> list[WorkerState]:
        """The live worker processes that take row tasks from the evaluation's queue."""
        queue = self.queue_of(evaluation)
        return [worker for worker in self._store.workers.live() if queue in worker.info.queues]

    def _at_once(self, evaluation: Evaluation) -> list[int]:
        """How many rows each worker process that serves an evaluation runs at the same time."""
        limits = [worker.info.concurrency for worker in self._serving(evaluation)]
        return [evaluation.config.concurrency_in(each) or ASYNC_CONCURRENCY for each in limits]

    def rows_at_once(self, evaluation: Evaluation) -> int:
        """How many rows of an evaluation the live worker processes of its queue run at the same time."""
        return sum(self._at_once(evaluation))

    def _possible_holders(self, evaluation: Evaluation) -> list[WorkerState]:
        """The live worker processes that may hold rows of an evaluation, also from when it was on another queue."""
        queue = self.queue_of(evaluation)
        return [
            worker
            for worker in self._store.workers.live()
            if queue in worker.info.queues or any(held.evaluation_uid == evaluation.uid for held in worker.holding)
        ]

    def prospect(self, evaluation: Evaluation) -> Prospect:
        """Whether live worker processes can run an evaluation, by what they have recorded."""
        failures = self._store.loads.failures(evaluation.id)
        if not failures:
            return Prospect.GOOD
        return prospect(failures, self._serving(evaluation), lambda: self._store.results.writers(evaluation.id))

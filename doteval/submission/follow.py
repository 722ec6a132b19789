"""Follows evaluations until they end: reads the store, reports progress, and has pending rows published."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from doteval.broker.embedded_redis import EmbeddedRedis
from doteval.coordination.dispatcher import Dispatcher
from doteval.coordination.ended_evaluations import store_missing_summaries
from doteval.coordination.outage_retry import retry_through_outage
from doteval.core import clocks
from doteval.core.batches import BatchProgress
from doteval.core.broker_url import Broker
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus, Experiment
from doteval.core.liveness import QUEUE_UNSERVED_SECONDS
from doteval.core.queues_and_devices import worker_command_for
from doteval.core.states import EvaluationEnd
from doteval.core.stop_signals import rows_finish_first
from doteval.core.wording import counted
from doteval.errors import DotEvalError, StoreError, WorkerError
from doteval.pytest_runtime.fingerprint import unread_files
from doteval.settings import load_settings
from doteval.store import Store
from doteval.supervision.fork_server import ForkServer
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions

Value = TypeVar("Value")

# Seconds between two looks at the store: few at first, so that the end of a short evaluation is reported at once, then
# growing by a factor. A look costs one query for each evaluation, whatever its size.
_FIRST_LOOK_SECONDS = 0.03
_LOOK_SECONDS = 0.25
_LOOK_GROWTH = 1.1
# Seconds between two runs of the dispatcher.
_SETTLE_SECONDS = 1.0


class ProgressObserver(Protocol):
    """Receives the progress of a submission."""

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None:
        """Called once the evaluations are stored; `workers` local worker processes are being started."""

    def moved(self, evaluations: Sequence[Evaluation], batches: Mapping[int, BatchProgress] | None = None) -> None:
        """Called several times a second, with the current state of the evaluations and of their batches, by id."""

    def ended(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
        """Called when all have ended. Local worker processes leave meanwhile."""

    def note(self, line: str) -> None:
        """Called with each line that the user should read."""


class Following:
    """Follows evaluations: reports their progress to an observer and runs the dispatcher.

    supervisor: starts the local worker processes; None where others start them
    max_errors: how many rows of an evaluation may fail before it is ended, None for any number
    """

    def __init__(
        self,
        store: Store,
        dispatcher: Dispatcher,
        evaluations: list[Evaluation],
        observer: ProgressObserver,
        supervisor: Supervisor | None = None,
        *,
        max_errors: int | None = None,
    ) -> None:
        self._max_errors = max_errors
        self._supervisor = supervisor
        self._store = store
        self._dispatcher = dispatcher
        self._evaluations = evaluations
        self._observer = observer
        self._next_look = 0.0
        self._next_settle = clocks.monotonic() + _SETTLE_SECONDS
        self._next_batches = 0.0
        self._batches: Mapping[int, BatchProgress] = {}
        self._begun: set[str] = set()
        # By queue: since when no worker process serves it; infinity once the user knows.
        self._unserved_since: dict[str, float] = {}
        # Never set: a signal ends the wait.
        self._never = threading.Event()

    def through_outage(self, action: Callable[[], Value]) -> Value:
        """Do what needs the store or the broker, again and again while they are unavailable."""
        return retry_through_outage(action, leaving=self._never, on_message=self._observer.note, where="screen")

    def current(self) -> list[Evaluation]:
        """The evaluations as they are in the store now."""
        by_uid = self._store.evaluations.by_uid
        return self.through_outage(lambda: [by_uid(evaluation.uid) for evaluation in self._evaluations])

    def _look(self) -> list[Evaluation]:
        """The evaluations as they are now, which the observer is given. Those with too many failed rows are ended.

        Worker processes begin no further row of an evaluation that has ended, as after `doteval cancel`.
        """
        current, most = self.current(), self._max_errors
        if most is not None:
            over = [each for each in current if each.status is EvaluationStatus.RUNNING and each.counts.failed > most]
            for each in over:
                self.through_outage(partial(self._end, each, Ending.at_max_errors(most)))
            if over:
                current = self.current()
        self._observer.moved(current, self._batches_of(current))
        return current

    def _batches_of(self, evaluations: Sequence[Evaluation]) -> Mapping[int, BatchProgress]:
        """The progress of batches, which is read once a second."""
        if clocks.monotonic() >= self._next_batches:
            self._batches = self.through_outage(lambda: self._store.batches.progress_of(evaluations))
            self._next_batches = clocks.monotonic() + _SETTLE_SECONDS
        return self._batches

    def _end(self, evaluation: Evaluation, ending: Ending) -> None:
        self._store.evaluations.end(evaluation.id, ending, only_from=EvaluationStatus.RUNNING)

    def publish(self, evaluation: Evaluation) -> bool:
        """Publish pending rows of an evaluation, as many as the queue has room for. False if it runs no more."""

        def publish() -> bool:
            current = self._store.evaluations.by_uid(evaluation.uid)
            if current.status is EvaluationStatus.RUNNING and current.counts.pending:
                if self._supervisor is not None:
                    self._supervisor.start()
                self._dispatcher.publish(current)
            return current.status is EvaluationStatus.RUNNING

        return self.through_outage(publish)

    def report_progress(self) -> None:
        """Report the current state to the observer, at most a few times a second.

        Raises WorkerError: when no local worker process can start
        """
        self._raise_if_no_worker_can_start()
        if clocks.monotonic() >= self._next_look:
            self._look()
            self._next_look = clocks.monotonic() + _LOOK_SECONDS

    def to_the_end(self) -> None:
        """Follow until no evaluation is running any more, then ask local worker processes to leave.

        Raises WorkerError: when none of them can start; the evaluations that still run have failed then
        """
        current = self.until(lambda: False)
        if self._supervisor is not None:
            self._supervisor.drain()
        self.through_outage(lambda: store_missing_summaries(self._store, current))
        self._observer.ended(self._store, current)

    def until(self, is_over: Callable[[], bool]) -> list[Evaluation]:
        """Follow until something is over, or no evaluation is running any more. Returns the evaluations as they are.

        Raises WorkerError: as `to_the_end` does
        """
        pause = _FIRST_LOOK_SECONDS
        while True:
            self._raise_if_no_worker_can_start()
            current = self._look()
            all_done = all(
                evaluation.counts.total is not None and not evaluation.counts.pending
                for evaluation in current
                if evaluation.status is EvaluationStatus.RUNNING
            )
            # Once the first results tell how long rows take, the dispatcher publishes the rest.
            begun = {each.uid for each in current if each.counts.finished} - self._begun
            self._begun |= begun
            if all_done or begun or clocks.monotonic() >= self._next_settle:
                current = self.through_outage(lambda: [self._dispatcher.settle(each) for each in self._evaluations])
                self.through_outage(lambda: self._note_unserved_queues(QUEUE_UNSERVED_SECONDS))
                self._next_settle = clocks.monotonic() + _SETTLE_SECONDS
            if all(evaluation.status is not EvaluationStatus.RUNNING for evaluation in current) or is_over():
                self._observer.moved(current)
                return current
            time.sleep(pause)
            pause = min(_LOOK_SECONDS, pause * _LOOK_GROWTH)

    def _raise_if_no_worker_can_start(self) -> None:
        why = None if self._supervisor is None else self._supervisor.hopeless_start()
        if why is None:
            return
        ending = Ending(EvaluationStatus.FAILED, EvaluationEnd.WORKERS_CANNOT_START, why.partition("\n")[0])
        # No retry: a full disk may be what stops both the worker processes and the store.
        with contextlib.suppress(StoreError):
            for each in self._evaluations:
                self._end(each, ending)
        raise WorkerError(
            why,
            remedy="Look for the cause in what they printed, and submit again.",
            page="troubleshooting#workers-cannot-start",
        )

    def note_changed_files(self) -> None:
        """Note for the user that worker processes have to read changed files before any of them can run a row."""
        live = self.through_outage(self._store.workers.live)
        for evaluation in self._evaluations:
            queue = self._dispatcher.queue_of(evaluation)
            serving = [worker for worker in live if queue in worker.info.queues]
            unread = [
                unread_files(evaluation.spec.fingerprint, worker.code.files)
                for worker in serving
                if worker.code is not None
            ]
            if unread and len(unread) == len(serving) and all(unread):
                files = dict.fromkeys(file for each in unread for file in each)
                processes = counted(len(unread), "worker process")
                self._observer.note(f"waiting for {processes} to load the changed {', '.join(files)}")

    def note_unserved_queues(self) -> None:
        """Note for the user which queues of these evaluations no worker process serves now."""
        self.through_outage(lambda: self._note_unserved_queues(0.0))

    def _note_unserved_queues(self, after_seconds: float) -> None:
        served = {queue for worker in self._store.workers.live() for queue in worker.info.queues}
        wanted = dict.fromkeys(
            self._dispatcher.queue_of(each)
            for each in self.current()
            # A worker elsewhere cannot serve the queue of a private broker.
            if each.status is EvaluationStatus.RUNNING and not each.is_private
        )
        now = clocks.monotonic()
        for queue in served:
            self._unserved_since.pop(queue, None)
        for queue in wanted:
            if queue not in served and now - self._unserved_since.setdefault(queue, now) >= after_seconds:
                self._unserved_since[queue] = float("inf")
                self._observer.note(
                    f"no worker process listens on the queue {queue!r}; start one with: {worker_command_for(queue)}"
                )


def store_late_summaries(store: Store, evaluations: Sequence[Evaluation], observer: ProgressObserver) -> None:
    """Store the metrics of evaluations again that ended before their last results came, as when one is cancelled.

    Call it once the local worker processes have left.
    """
    try:
        store_missing_summaries(store, evaluations)
    except DotEvalError as error:
        observer.note(f"the metrics are not stored: {error.message}")


def broker_for(stack: contextlib.ExitStack, given: Broker | None) -> Broker:
    """Return the broker that was `given`, else start a private one that lives as long as the stack.

    Raises BrokerError if no private one can be started.
    """
    if given is not None:
        return given
    return stack.enter_context(EmbeddedRedis()).broker


def queues_of(evaluations: Sequence[Evaluation], otherwise: str) -> tuple[str, ...]:
    """The queues that evaluations travel on, each once."""
    return tuple(dict.fromkeys(evaluation.queue or otherwise for evaluation in evaluations))


@contextlib.contextmanager
def local_workers(
    options: WorkerOptions,
    processes: int,
    store: Store,
    observer: ProgressObserver,
    devices: Sequence[str] = (),
    fork_server: ForkServer | None = None,
) -> Iterator[Supervisor]:
    """A supervisor of local worker processes, which it stops at the end of the block, when rows in flight have ended.

    It starts them only when its `start` is called.
    """
    note, settings = observer.note, load_settings()
    supervisor = Supervisor(
        options, processes, store, on_message=note, output=note, devices=devices, fork_server=fork_server
    )
    try:
        yield supervisor
    except KeyboardInterrupt:
        if supervisor.pids():
            note(f"stopping: {rows_finish_first(settings.drain_timeout)}")
        try:
            supervisor.stop(timeout=settings.leave_timeout)
        except WorkerError as error:
            # The command ends as the user wanted it to.
            note(error.message)
        raise
    except BaseException:
        supervisor.stop(timeout=settings.leave_timeout)
        raise
    supervisor.stop(timeout=settings.leave_timeout)

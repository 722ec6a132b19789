"""Submit: dataset → result store → row tasks → follow to the end."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from doteval.datasets import open_dataset
from doteval.dispatch import Dispatcher, DispatchOptions
from doteval.errors import UsageError
from doteval.execution.attempts import DEFAULT_RETRIES, DEFAULT_RETRY_DELAY
from doteval.execution.embedded import Collected, with_collected
from doteval.execution.fingerprint import specify
from doteval.execution.items import EvaluationItem
from doteval.experiments import POLICY, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.intake import take_in
from doteval.patience import patiently
from doteval.queue.embedded_redis import EmbeddedRedis
from doteval.queue.publisher import Publisher
from doteval.store import Store
from doteval.supervisor import Supervisor
from doteval.worker_options import WorkerOptions, slots_for

Value = TypeVar("Value")

# Seconds between two looks at the store while following, and between two times that what is
# pending is brought forward. A look costs one query an evaluation, whatever its size.
_LOOK_SECONDS = 0.25
_SETTLE_SECONDS = 1.0
# Seconds without any worker process after which the user is told.
_LONELY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What `doteval submit` was told. None means the default.

    Without `broker`, a private Redis and `workers` local worker processes serve this submission.
    `samples` is how many rows of each dataset to run; `rows_per_task` how many travel in one row
    task, None to choose; `epochs` how many samples of every row. `retry_delay` and `row_timeout` are
    in seconds.
    """

    paths: tuple[str, ...]
    experiment: str
    storage: str | None = None
    broker: str | None = None
    queue: str = "doteval"
    workers: int | None = None
    concurrency: int | None = None
    rows_per_task: int | None = None
    samples: int | None = None
    keyword: str | None = None
    detach: bool = False
    allow_changed: bool = False
    epochs: int = 1
    max_retries: int = DEFAULT_RETRIES
    retry_delay: float = DEFAULT_RETRY_DELAY
    row_timeout: float | None = None
    max_crashes: int = 2


class Watcher(Protocol):
    """Is told how a submission goes on."""

    def began(self, experiment: Experiment, evaluations: Sequence[Evaluation], workers: int) -> None:
        """The evaluations are in the store; `workers` local worker processes are being started."""

    def moved(self, evaluations: Sequence[Evaluation]) -> None:
        """How the evaluations stand now; called several times a second."""

    def note(self, line: str) -> None:
        """Something that the user should know."""


@dataclass(frozen=True, slots=True)
class Submission:
    """How the evaluations of a submission stand when `submit` returns."""

    experiment: Experiment
    evaluations: list[Evaluation]
    storage: str


def submit(options: SubmitOptions, watcher: Watcher) -> Submission:
    """Evaluate on worker processes; what an earlier submission has done is not done again.

    Returns when all is done, or, with `detach`, when all is published. KeyboardInterrupt stops
    following: local worker processes finish their rows in flight, the others stay pending.

    Raises EvaluationFileError, ColumnError, DatasetError, UnstorableValueError, ChangedError,
    UsageError, BrokerError and StoreError.
    """
    if options.detach and options.broker is None:
        raise UsageError(
            "--detach needs a broker that outlives this command",
            remedy="Name one with --broker URL or DOTEVAL_BROKER, and start workers with `doteval worker`.",
        )
    finished: list[Submission] = []

    def body(collected: Collected) -> None:
        finished.append(_submit_collected(collected, options, watcher))

    with_collected(options.paths, body, keyword=options.keyword)
    return finished[0]


def _submit_collected(collected: Collected, options: SubmitOptions, watcher: Watcher) -> Submission:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store.open(options.storage)))
        broker = options.broker or stack.enter_context(EmbeddedRedis()).url
        publisher = stack.enter_context(contextlib.closing(Publisher(broker, options.queue)))
        publisher.connect()
        processes = 0 if options.broker else options.workers or os.cpu_count() or 1
        experiment = store.experiments.begin(options.experiment)
        at_work = _at_work(store, experiment, options.queue)
        evaluations = [
            store.evaluations.begin(
                experiment, _specify(item, options), epochs=options.epochs, allow_changed=options.allow_changed
            )
            for item in collected.items
        ]
        watcher.began(experiment, evaluations, processes)
        if processes:
            stack.enter_context(_local_workers(options, store, broker, processes, watcher))
        dispatcher = Dispatcher(
            store, publisher, DispatchOptions(options.rows_per_task, max(1, processes) * (options.concurrency or 10))
        )
        following = _Following(store, dispatcher, evaluations, options.queue, watcher)
        for evaluation in evaluations:
            store.rows.retry_failed(evaluation.id)
            if evaluation.uid not in at_work:
                dispatcher.restart(evaluation)
        for item, evaluation in zip(collected.items, evaluations, strict=True):
            dataset = open_dataset(item.spec.dataset, columns=item.spec.columns, base=item.path.parent)
            chunks = take_in(
                store,
                evaluation,
                dataset,
                samples=options.samples,
                allow_changed=options.allow_changed,
                patient=following.patiently,
            )
            for _ in chunks:
                following.publish(evaluation)
                following.look()
            following.publish(evaluation)
        if not options.detach:
            following.to_the_end()
        return Submission(experiment, following.current(), store.url)


def _at_work(store: Store, experiment: Experiment, queue: str) -> set[str]:
    """The evaluations that worker processes may be at work on, for a submitter that lives or died.

    What they hold may not be in the store yet. Their lost rows are published when the queue has drained.
    """
    if not any(queue in worker.info.queues for worker in store.workers.live()):
        return set()
    of_experiment = store.evaluations.of(experiment)
    return {each.uid for each in of_experiment if each.status is EvaluationStatus.RUNNING}


def _specify(item: EvaluationItem, options: SubmitOptions) -> EvaluationSpec:
    """The evaluation with what this command says of its rows, so that worker processes elsewhere know."""
    spec = specify(item)
    policy = {"retries": options.max_retries, "delay": options.retry_delay, "timeout": options.row_timeout}
    return replace(spec, metadata={**spec.metadata, POLICY: policy})


@contextlib.contextmanager
def _local_workers(
    options: SubmitOptions, store: Store, broker: str, processes: int, watcher: Watcher
) -> Iterator[None]:
    worker_options = WorkerOptions(
        paths=options.paths,
        storage=store.raw_url,
        broker=broker,
        queue=options.queue,
        concurrency=options.concurrency,
        slots=slots_for(options.concurrency),
        keyword=options.keyword,
        service="local",
        max_crashes=options.max_crashes,
    )
    supervisor = Supervisor(worker_options, processes, store, told=watcher.note, output=watcher.note)
    supervisor.start()
    try:
        yield
    finally:
        supervisor.stop()


class _Following:
    """Looks at the store now and then, tells the watcher, and brings pending rows forward."""

    def __init__(
        self, store: Store, dispatcher: Dispatcher, evaluations: list[Evaluation], queue: str, watcher: Watcher
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._evaluations = evaluations
        self._queue = queue
        self._watcher = watcher
        self._next_look = 0.0
        self._next_settle = time.monotonic() + _SETTLE_SECONDS
        self._alone_since: float | None = None
        # Ctrl-C ends the waiting.
        self._never = threading.Event()

    def patiently(self, action: Callable[[], Value]) -> Value:
        """Do what needs the store or the broker, as soon as they are there."""
        return patiently(action, leaving=self._never, told=self._watcher.note)

    def current(self) -> list[Evaluation]:
        """The evaluations as they stand now."""
        by_uid = self._store.evaluations.by_uid
        return self.patiently(lambda: [by_uid(evaluation.uid) for evaluation in self._evaluations])

    def publish(self, evaluation: Evaluation) -> None:
        """Publish what is pending of an evaluation and has room in the queue."""
        by_uid = self._store.evaluations.by_uid
        self.patiently(lambda: self._dispatcher.publish(by_uid(evaluation.uid)))

    def look(self) -> None:
        """Tell the watcher how it stands, unless it was told a moment ago."""
        if time.monotonic() >= self._next_look:
            self._watcher.moved(self.current())
            self._next_look = time.monotonic() + _LOOK_SECONDS

    def to_the_end(self) -> None:
        """Follow until no evaluation is running any more."""
        while True:
            current = self.current()
            self._watcher.moved(current)
            all_done = all(
                evaluation.counts.total is not None and not evaluation.counts.pending
                for evaluation in current
                if evaluation.status is EvaluationStatus.RUNNING
            )
            if all_done or time.monotonic() >= self._next_settle:
                current = self.patiently(lambda: [self._dispatcher.settle(each) for each in self._evaluations])
                self.patiently(self._tell_if_alone)
                self._next_settle = time.monotonic() + _SETTLE_SECONDS
            if all(evaluation.status is not EvaluationStatus.RUNNING for evaluation in current):
                self._watcher.moved(current)
                return
            time.sleep(_LOOK_SECONDS)

    def _tell_if_alone(self) -> None:
        live = [worker for worker in self._store.workers.live() if self._queue in worker.info.queues]
        if live:
            self._alone_since = None
            return
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        elif now - self._alone_since >= _LONELY_SECONDS:
            self._alone_since = float("inf")
            self._watcher.note(
                f"no worker process listens on the queue {self._queue!r}; start one with: doteval worker PATH"
            )

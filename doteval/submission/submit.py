"""`submit` streams datasets into the result store, publishes row tasks, and follows them to the end."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from doteval.broker.fair_queues import Priority
from doteval.broker.publisher import Publisher
from doteval.coordination.budget_guard import used_up
from doteval.coordination.claims import wait_for_other_brokers
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.coordination.endings import end_running, end_unrun
from doteval.coordination.ingest import ingest_dataset
from doteval.coordination.provenance import CommandOrigin, record_command
from doteval.coordination.publish_cursor import is_held_back
from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.core.budgets import budget_error
from doteval.core.client_config import ClientConfig
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus, Experiment, ephemeral_name
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.run_config import RunConfig, RunTarget
from doteval.core.states import EvaluationEnd
from doteval.datasets import open_dataset
from doteval.errors import ChangedError, DotEvalError, UsageError
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.fingerprint import specify
from doteval.pytest_runtime.items import EvaluationItem, batch_of
from doteval.pytest_runtime.outcomes import ending_of, stop_before_rows
from doteval.runner.error_classes import is_skip
from doteval.store import Store
from doteval.submission.batch_mode import check_batch_mode, check_batch_options, keep_batch_mode
from doteval.submission.estimation import EstimateOptions, Estimation, hold_back_known
from doteval.submission.follow import (
    Following,
    ProgressObserver,
    broker_for,
    local_workers,
    queues_of,
    store_late_summaries,
)
from doteval.submission.presence import presence
from doteval.supervision.fork_server import ForkServer
from doteval.supervision.left_usage import store_left_usage
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions, rows_in_flight, slots_for
from doteval.tracing.commands import command_span

# Seconds between two searches for rows that an earlier submission left pending.
_PUBLISH_SECONDS = 1.0
# Those of `doteval.clients.fixtures` that import the openai package, when they are set up.
_OPENAI_FIXTURES = frozenset(("openai_client", "async_openai_client"))


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """The options of `doteval submit`; None means the default.

    target: the experiment, and which rows to run
    config: how rows are run
    broker: None starts a private Redis and `workers` local worker processes for this submission
    queue: for evaluations that name none
    devices: each local worker process sees one of them
    rows_per_task: rows of a row task; None lets the dispatcher choose
    root: pytest's root directory, None to leave it to pytest
    command: the arguments of the command, which are recorded with the experiment
    max_errors: how many rows of an evaluation may fail before it is ended, None for any number
    estimate: what runs before the user decides on the rest, None to run all rows at once
    needing_batch: the flags that were given without --batch, and that only batch mode has
    """

    paths: tuple[str, ...]
    target: RunTarget
    config: RunConfig = field(default_factory=RunConfig)
    broker: Broker | None = None
    queue: str = DEFAULT_QUEUE
    workers: int | None = None
    devices: tuple[str, ...] = ()
    concurrency: int | None = None
    rows_per_task: int | None = None
    keyword: str | None = None
    root: str | None = None
    detach: bool = False
    priority: Priority | None = None
    client_config: ClientConfig = field(default_factory=ClientConfig)
    command: tuple[str, ...] = ()
    max_errors: int | None = None
    estimate: EstimateOptions | None = None
    needing_batch: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Submission:
    """Where the results of a submission are.

    storage: the URL of the store, with its password
    is_whole: whether all rows were to run, not only those of an estimate
    refused: what has to be changed for evaluations that could not run, None if all could
    unrecorded: the same, in sentences, where no ending of theirs says so
    """

    experiment: Experiment
    storage: str = field(repr=False)
    refused: DotEvalError | None = None
    unrecorded: tuple[str, ...] = ()
    is_whole: bool = True


class RowSource(Protocol):
    """Where the rows of evaluations come from, and how they run."""

    def config(self, item: EvaluationItem, config: RunConfig) -> RunConfig:
        """How the rows of an evaluation run. config: what the command says of that."""

    def epochs(self, item: EvaluationItem) -> int:
        """How often each row of an evaluation runs."""

    def add(self, item: EvaluationItem, evaluation: Evaluation, following: Following) -> Iterator[bool]:
        """Add the rows of an evaluation to the store. Yields after every part whether its rows are new there."""


def submit(options: SubmitOptions, observer: ProgressObserver, fork_server: ForkServer | None = None) -> Submission:
    """Evaluate on worker processes. Rows that an earlier submission completed are not run again.

    Returns when all rows have completed or, with `detach`, when all are published. After KeyboardInterrupt local worker
    processes finish their rows in flight; the others stay pending. A `fork_server` starts local worker processes.

    An evaluation whose file or dataset needs a change does not keep the others from running.

    Raises EvaluationFileError, ColumnError, DatasetError, UnstorableValueError, ChangedError or UsageError: when the
        files, the datasets or the options need a change, for all of the evaluations
    Raises NothingRanError: when pytest skips all the files
    Raises BrokerError or StoreError: when they cannot be used
    Raises BudgetError: when the budget is used up already
    Raises WorkerError: when no local worker process can start
    """
    check_options(options)
    finished: list[Submission] = []

    def body(collected: Collected) -> None:
        for line in collected.skipped:
            observer.note(line)
        with contextlib.closing(Store.open(_storage(collected, options))) as store:
            store_left_usage(store)
            check_batch_options(options.needing_batch, marked=any(map(batch_of, collected.items)))
            rows = _RowsOfDatasets(store, options)
            finished.append(submit_items(store, collected.items, rows, options, observer, fork_server))

    with_collected(options.paths, body, keyword=options.keyword)
    return finished[0]


def check_options(options: SubmitOptions) -> None:
    """Raise UsageError if options need a change, whatever is submitted."""
    if options.detach and options.broker is None:
        raise UsageError(
            "--detach needs a broker that outlives this command",
            remedy="Name one with --broker URL or DOTEVAL_BROKER, and start workers with `doteval worker`.",
        )
    if options.detach and options.estimate is not None:
        raise UsageError(
            "--detach waits for nothing, and an estimate is there when its rows have run",
            remedy="Use --estimate-only first, and then submit with --detach: the rows that have run do not run again.",
        )


def submit_items(
    store: Store,
    items: Sequence[EvaluationItem],
    rows: RowSource,
    options: SubmitOptions,
    observer: ProgressObserver,
    fork_server: ForkServer | None,
) -> Submission:
    """Evaluate collected evaluations on worker processes, as `submit` does, with rows from `rows`."""
    if fork_server is not None and _use_openai(items):
        fork_server.import_too(["doteval.clients.openai"])
    with contextlib.ExitStack() as stack:
        submitter = _Submitter(store, items, rows, options, observer)
        if submitter.to_run:
            submitter.run(stack, fork_server)
        else:
            submitter.end_stopped()
            observer.began(submitter.experiment(), submitter.evaluations(), 0)
            observer.ended(store, submitter.evaluations())
        refused = submitter.refused()
        if refused is not None and submitter.all_refused:
            raise refused
        return Submission(
            submitter.experiment(), store.raw_url, refused, tuple(submitter.unrecorded), submitter.is_whole
        )


def _use_openai(items: Sequence[EvaluationItem]) -> bool:
    """Whether evaluations use the openai package, as far as its import, or the fixtures that they name, tell.

    To import it takes half a second of the processor in each process.
    """
    return "openai" in sys.modules or any(not _OPENAI_FIXTURES.isdisjoint(item.fixturenames) for item in items)


class _Submitter:
    """Submits the evaluations of one command. One that cannot run is ended, and the others run all the same."""

    def __init__(
        self,
        store: Store,
        items: Sequence[EvaluationItem],
        rows: RowSource,
        options: SubmitOptions,
        observer: ProgressObserver,
    ) -> None:
        self._store = store
        self._items = items
        self._rows = rows
        self._options = options
        self._observer = observer
        stops = [(item, stop_before_rows(item)) for item in items]
        self._stopped = [(item, stop) for item, stop in stops if stop is not None]
        self.to_run = [item for item, stop in stops if stop is None]
        self._evaluations: dict[EvaluationItem, Evaluation] = {}
        self._refused: list[DotEvalError] = []
        self.unrecorded: list[str] = []
        self.is_whole = True
        self._experiment: Experiment | None = None

    def experiment(self) -> Experiment:
        """The experiment, which begins with the first call."""
        if self._experiment is None:
            name = self._options.target.experiment or ephemeral_name()
            self._experiment = self._store.experiments.begin(name)
            target, origin = self._options.target, CommandOrigin(self._options.command, self._items[0].path.parent)
            record_command(self._store, self._experiment, origin, tags=target.tag, note=target.note)
        return self._experiment

    def evaluations(self) -> list[Evaluation]:
        """The evaluations as they began or ended here, in the order of their files."""
        return [self._evaluations[item] for item in self._items if item in self._evaluations]

    def refused(self) -> DotEvalError | None:
        """What has to be changed for evaluations that could not run, None if all could."""
        if len(self._refused) < 2:
            return self._refused[0] if self._refused else None
        remedies = dict.fromkeys(each.remedy for each in self._refused if each.remedy)
        return UsageError(
            "; ".join(each.message for each in self._refused),
            remedy="\n".join(remedies) or None,
            page=next((each.page for each in self._refused if each.page), None),
        )

    @property
    def all_refused(self) -> bool:
        return len(self._refused) == len(self._items)

    def end_stopped(self) -> None:
        """Record how the evaluations end that a mark stops, or a fixture that does not exist."""
        config = replace(self._options.config, submitted=True, queue=self._options.queue)
        for item, stop in self._stopped:
            ending = ending_of(item, stop)
            self._evaluations[item] = end_unrun(self._store, self.experiment(), specify(item, config), ending)
            self._note_refusal(stop, ending)

    def run(self, stack: contextlib.ExitStack, fork_server: ForkServer | None) -> None:
        """Run the other evaluations to their end or, with `detach`, until all rows are published."""
        store, options, observer = self._store, self._options, self._observer
        begun: list[Evaluation] = []
        stack.callback(store_late_summaries, store, begun, observer)
        present = stack.enter_context(presence(store, "submit", begun))
        broker = broker_for(stack, options.broker)
        publisher = stack.enter_context(contextlib.closing(Publisher(broker, options.queue)))
        publisher.connect()
        processes = 0 if options.broker else options.workers or len(options.devices) or os.cpu_count() or 1
        experiment = self.experiment()
        mode = options.client_config.tracing
        traceparent = stack.enter_context(command_span("submit", experiment.name, mode))
        _check_budget(store, experiment, self.to_run, options)
        known = _known(store, experiment, self.to_run)
        wait_for_other_brokers(store, known, on_message=observer.note, private=broker.is_private)
        before = {each.uid: each.status for each in store.evaluations.of(experiment)}
        if options.estimate is not None:
            hold_back_known(store, _known(store, experiment, self.to_run))
        perhaps_running = _perhaps_running(store, experiment)
        self.end_stopped()
        # Stored with the evaluations, so that worker processes elsewhere know.
        config = replace(
            options.config,
            submitted=True,
            queue=options.queue,
            private_broker=broker.private,
            traceparent=traceparent,
        )
        for item in self.to_run:
            self._begin(item, config, before, begun)
        present.follow(begun)
        if not begun:
            return
        observer.began(experiment, self.evaluations(), processes)
        supervisor: Supervisor | None = None
        if processes:
            worker_options = _worker_options(options, store, broker, queues_of(begun, options.queue))
            supervisor = stack.enter_context(
                local_workers(worker_options, processes, store, observer, options.devices, fork_server)
            )
            # They start before the first rows are read, which may take longer than loading models. If everything was
            # completed, they may not be needed.
            if any(before.get(each.uid) is not EvaluationStatus.COMPLETED for each in begun):
                supervisor.start()
        slots = rows_in_flight(processes, options.concurrency)
        queues = {each.uid: each.queue or options.queue for each in begun}
        dispatcher = Dispatcher(store, publisher, DispatchOptions(options.rows_per_task, slots, queues))
        following = Following(
            store, dispatcher, self.evaluations(), observer, supervisor, max_errors=options.max_errors
        )
        for evaluation in begun:
            store.rows.retry_failed(evaluation.id)
            if evaluation.uid not in perhaps_running:
                dispatcher.restart(evaluation, priority=options.priority, hold_back=options.estimate is not None)
        if not broker.is_private:
            following.note_changed_files()
        for item in self.to_run:
            if item in self._evaluations:
                self._send_rows(item, following, perhaps_running)
        if options.estimate is not None:
            self.is_whole = Estimation(store, dispatcher, following, begun, options.estimate).run()
        if options.detach:
            following.note_unserved_queues()
        else:
            following.to_the_end()

    def _begin(
        self,
        item: EvaluationItem,
        config: RunConfig,
        before: Mapping[str, EvaluationStatus],
        begun: list[Evaluation],
    ) -> None:
        target = self._options.target
        try:
            spec, epochs = specify(item, self._rows.config(item, config)), self._rows.epochs(item)
            check_batch_mode(spec)
            evaluation = self._store.evaluations.begin(
                self.experiment(), spec, epochs=epochs, allow_changed=target.allow_changed
            )
        except (ChangedError, UsageError) as error:
            if config.batch:
                # The others may take a day.
                self._observer.note(f"not run: {error.message}")
            self._refused.append(error)
            self.unrecorded.append(error.message)
        else:
            if before.get(evaluation.uid) is EvaluationStatus.SKIPPED and self._store.rows.retry_skipped(evaluation.id):
                evaluation = self._store.evaluations.by_uid(evaluation.uid)
            evaluation = keep_batch_mode(
                self._store,
                evaluation,
                self._observer.note,
                was_running=before.get(evaluation.uid) is EvaluationStatus.RUNNING,
            )
            self._evaluations[item] = evaluation
            begun.append(evaluation)

    def _send_rows(self, item: EvaluationItem, following: Following, perhaps_running: Container[str]) -> None:
        """Stream the rows of an evaluation into the store, and publish them as they come.

        A dataset that cannot be read, or that skips, ends the evaluation.
        """
        evaluation = self._evaluations[item]
        try:
            _send_rows(self._rows.add(item, evaluation, following), following, evaluation)
        except BaseException as error:
            if not isinstance(error, UsageError) and not is_skip(error):
                raise
            ending = ending_of(item, error)
            self._note_refusal(error, ending)
            # Rows that worker processes run already are not affected.
            if evaluation.uid not in perhaps_running:
                end_running(self._store, evaluation, ending)
            elif isinstance(error, DotEvalError):
                self.unrecorded.append(error.message)

    def _note_refusal(self, error: BaseException, ending: Ending) -> None:
        if isinstance(error, DotEvalError) and ending.cause is not EvaluationEnd.EXPECTED_FAILURE:
            self._refused.append(error)


def _worker_options(options: SubmitOptions, store: Store, broker: Broker, queues: tuple[str, ...]) -> WorkerOptions:
    """The options of the local worker processes."""
    return WorkerOptions(
        paths=options.paths,
        storage=store.raw_url,
        broker=broker,
        queues=queues,
        concurrency=options.concurrency,
        slots=slots_for(options.concurrency),
        keyword=options.keyword,
        root=options.root,
        service="local",
        # Rate limits are kept in the private Redis, which ends with this command; the cache stays in its file.
        client_config=replace(options.client_config, broker=broker.url),
    )


class _RowsOfDatasets:
    """Reads the rows of evaluations from their datasets."""

    def __init__(self, store: Store, options: SubmitOptions) -> None:
        self._store = store
        self._target = options.target

    def config(self, item: EvaluationItem, config: RunConfig) -> RunConfig:  # noqa: ARG002 - all run alike
        return config

    def epochs(self, item: EvaluationItem) -> int:  # noqa: ARG002 - all run alike
        return self._target.epochs

    def add(self, item: EvaluationItem, evaluation: Evaluation, following: Following) -> Iterator[bool]:
        dataset = open_dataset(item.spec.dataset, columns=item.spec.columns, base=item.path.parent)
        chunks = ingest_dataset(
            self._store,
            evaluation,
            dataset,
            samples=self._target.samples,
            allow_changed=self._target.allow_changed,
            retry=following.through_outage,
        )
        return (chunk.new for chunk in chunks)


def _send_rows(added: Iterator[bool], following: Following, evaluation: Evaluation) -> None:
    """Publish the rows of an evaluation as they are added to the store."""
    next_publish = 0.0
    for are_new in added:
        # Rows that were stored before are searched for pending ones only now and then, since that takes longer the more
        # of them are done.
        if are_new or clocks.monotonic() >= next_publish:
            if not following.publish(evaluation):
                # It was cancelled: the next submission reads the rest of the dataset.
                break
            next_publish = clocks.monotonic() + _PUBLISH_SECONDS
        following.report_progress()
    following.publish(evaluation)


def _storage(collected: Collected, options: SubmitOptions) -> str | None:
    """The result store that the evaluations name themselves, else the one of the command."""
    own = {item.spec.storage for item in collected.items}
    if own == {None}:
        return options.target.storage
    if len(own) > 1:
        names = ", ".join(sorted("that of the command" if name is None else str(name) for name in own))
        raise UsageError(
            f"the evaluations are for different result stores: {names}",
            remedy="Submit those of each result store by themselves, with PATH::NAME or -k.",
        )
    return str(own.pop())


def _check_budget(
    store: Store, experiment: Experiment, items: Sequence[EvaluationItem], options: SubmitOptions
) -> None:
    """Raise BudgetError if rows are to be run and the budget is used up."""
    stop = used_up(store, experiment, options.config.budget)
    if stop is None:
        return
    known = {(each.spec.path, each.name): each for each in store.evaluations.of(experiment)}
    wanted = [known.get((item.evaluation_path, item.evaluation_name)) for item in items]
    pending = sum(each.counts.pending for each in wanted if each is not None)
    if pending or any(
        each is None or each.counts.failed or not store.rows.dataset_state(each.id).complete for each in wanted
    ):
        raise budget_error(experiment.name, stop, pending=pending)


def _perhaps_running(store: Store, experiment: Experiment) -> set[str]:
    """The evaluations that worker processes may be running, for a submitter that lives or has died.

    The rows they hold may not be in the store yet. Lost rows are published again when the queue has drained. Those that
    are held back run no further row by themselves.
    """
    served = {queue for worker in store.workers.live() for queue in worker.info.queues}
    return {
        each.uid
        for each in store.evaluations.of(experiment)
        if each.status is EvaluationStatus.RUNNING
        and (each.queue or DEFAULT_QUEUE) in served
        and not is_held_back(store.evaluations.published(each.id))
    }


def _known(store: Store, experiment: Experiment, items: Sequence[EvaluationItem]) -> list[Evaluation]:
    """The evaluations that the experiment has already."""
    wanted = {(item.evaluation_path, item.evaluation_name) for item in items}
    return [each for each in store.evaluations.of(experiment) if (each.spec.path, each.name) in wanted]

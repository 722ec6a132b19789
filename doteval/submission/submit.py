"""`submit` streams datasets into the result store, publishes row tasks, and follows them to the end."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field, replace

from doteval.broker.fair_queues import Priority
from doteval.broker.publisher import Publisher
from doteval.coordination.budget_guard import used_up
from doteval.coordination.claims import wait_for_other_brokers
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.coordination.ingest import ingest_dataset
from doteval.core import clocks
from doteval.core.broker_url import Broker
from doteval.core.budgets import budget_error, check_prices
from doteval.core.client_config import ClientConfig
from doteval.core.experiments import Evaluation, EvaluationStatus, Experiment, ephemeral_name
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.run_config import RunConfig, RunTarget
from doteval.core.states import EvaluationEnd
from doteval.datasets import open_dataset
from doteval.errors import UsageError
from doteval.pytest_runtime.embedded_session import Collected, with_collected
from doteval.pytest_runtime.fingerprint import specify
from doteval.pytest_runtime.items import EvaluationItem
from doteval.store import Store
from doteval.submission.follow import (
    Following,
    ProgressObserver,
    broker_for,
    local_workers,
    queues_of,
    store_late_summaries,
)
from doteval.supervision.fork_server import ForkServer
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions, rows_in_flight, slots_for

# Seconds between two searches for rows that an earlier submission left pending.
_PUBLISH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """The options of `doteval submit`; None means the default.

    target: the experiment, and which rows to run
    config: how rows are run
    broker: None starts a private Redis and `workers` local worker processes for this submission
    queue: for evaluations that name none
    devices: each local worker process sees one of them
    rows_per_task: rows of a row task; None lets the dispatcher choose
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
    detach: bool = False
    priority: Priority | None = None
    client_config: ClientConfig = field(default_factory=ClientConfig)


@dataclass(frozen=True, slots=True)
class Submission:
    """Where the results of a submission are. `storage` is the URL of the store, with its password."""

    experiment: Experiment
    storage: str = field(repr=False)


def submit(options: SubmitOptions, observer: ProgressObserver, fork_server: ForkServer | None = None) -> Submission:
    """Evaluate on worker processes. Rows that an earlier submission completed are not run again.

    Returns when all rows have completed or, with `detach`, when all are published. After KeyboardInterrupt local worker
    processes finish their rows in flight; the others stay pending. A `fork_server` starts local worker processes.

    Raises EvaluationFileError, ColumnError, DatasetError, UnstorableValueError, ChangedError or UsageError: when the
        files, the datasets or the options need a change
    Raises BrokerError or StoreError: when they cannot be used
    Raises BudgetError: when the budget is used up already
    Raises WorkerError: when no local worker process can start
    """
    if options.broker is None:
        check_prices(options.config.budget, options.client_config.prices)
    if options.detach and options.broker is None:
        raise UsageError(
            "--detach needs a broker that outlives this command",
            remedy="Name one with --broker URL or DOTEVAL_BROKER, and start workers with `doteval worker`.",
        )
    finished: list[Submission] = []

    def body(collected: Collected) -> None:
        finished.append(_submit_collected(collected, options, observer, fork_server))

    with_collected(options.paths, body, keyword=options.keyword)
    return finished[0]


def _submit_collected(
    collected: Collected, options: SubmitOptions, observer: ProgressObserver, fork_server: ForkServer | None
) -> Submission:
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(contextlib.closing(Store.open(_storage(collected, options))))
        broker = broker_for(stack, options.broker)
        publisher = stack.enter_context(contextlib.closing(Publisher(broker, options.queue)))
        publisher.connect()
        processes = 0 if options.broker else options.workers or len(options.devices) or os.cpu_count() or 1
        experiment = store.experiments.begin(options.target.experiment or ephemeral_name())
        _check_budget(store, experiment, collected, options)
        known = _known(store, experiment, collected)
        wait_for_other_brokers(store, known, on_message=observer.note, private=broker.is_private)
        before = {each.uid: each.status for each in store.evaluations.of(experiment)}
        perhaps_running = _perhaps_running(store, experiment)
        # Stored with the evaluations, so that worker processes elsewhere know.
        config = replace(options.config, submitted=True, queue=options.queue, private_broker=broker.private)
        evaluations = [
            store.evaluations.begin(
                experiment,
                specify(item, config),
                epochs=options.target.epochs,
                allow_changed=options.target.allow_changed,
            )
            for item in collected.items
        ]
        stack.callback(store_late_summaries, store, evaluations, observer)
        observer.began(experiment, evaluations, processes)
        supervisor: Supervisor | None = None
        if processes:
            worker_options = _worker_options(options, store, broker, queues_of(evaluations, options.queue))
            supervisor = stack.enter_context(
                local_workers(worker_options, processes, store, observer, options.devices, fork_server)
            )
            # They start before the first rows are read, which may take longer than loading models. If everything was
            # completed, they may not be needed.
            if any(before.get(each.uid) is not EvaluationStatus.COMPLETED for each in evaluations):
                supervisor.start()
        slots = rows_in_flight(processes, options.concurrency)
        queues = {each.uid: each.queue or options.queue for each in evaluations}
        dispatcher = Dispatcher(store, publisher, DispatchOptions(options.rows_per_task, slots, queues))
        following = Following(store, dispatcher, evaluations, observer, supervisor)
        for evaluation in evaluations:
            store.rows.retry_failed(evaluation.id)
            if evaluation.uid not in perhaps_running:
                dispatcher.restart(evaluation, priority=options.priority)
        for item, evaluation in zip(collected.items, evaluations, strict=True):
            try:
                _send_rows(store, following, item, evaluation, options)
            except UsageError as error:
                # None of its rows run. A dataset that cannot be ingested leaves it as it was, or fails it.
                status = before.get(evaluation.uid, EvaluationStatus.FAILED)
                cause = None if status is EvaluationStatus.RUNNING else EvaluationEnd.DATASET_REFUSED
                store.evaluations.set_status(evaluation.id, status, error.message, end_cause=cause)
                raise
        if options.detach:
            following.note_unserved_queues()
        else:
            following.to_the_end()
        return Submission(experiment, store.raw_url)


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
        service="local",
        # Rate limits are kept in the private Redis, which ends with this command; the cache stays in its file.
        client_config=replace(options.client_config, broker=broker.url),
    )


def _send_rows(
    store: Store, following: Following, item: EvaluationItem, evaluation: Evaluation, options: SubmitOptions
) -> None:
    """Stream the dataset of an evaluation into the store, and publish its rows as they come."""
    dataset = open_dataset(item.spec.dataset, columns=item.spec.columns, base=item.path.parent)
    chunks = ingest_dataset(
        store,
        evaluation,
        dataset,
        samples=options.target.samples,
        allow_changed=options.target.allow_changed,
        retry=following.through_outage,
    )
    next_publish = 0.0
    for chunk in chunks:
        # Rows that were stored before are searched for pending ones only now and then, since that takes longer the more
        # of them are done.
        if chunk.new or clocks.monotonic() >= next_publish:
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


def _check_budget(store: Store, experiment: Experiment, collected: Collected, options: SubmitOptions) -> None:
    """Raise BudgetError if rows are to be run and the budget is used up."""
    stop = used_up(store, experiment, options.config.budget)
    if stop is None:
        return
    known = {(each.spec.path, each.name): each for each in store.evaluations.of(experiment)}
    wanted = [known.get((item.evaluation_path, item.evaluation_name)) for item in collected.items]
    pending = sum(each.counts.pending for each in wanted if each is not None)
    if pending or any(
        each is None or each.counts.failed or not store.rows.dataset_state(each.id).complete for each in wanted
    ):
        raise budget_error(experiment.name, stop, pending=pending)


def _perhaps_running(store: Store, experiment: Experiment) -> set[str]:
    """The evaluations that worker processes may be running, for a submitter that lives or has died.

    The rows they hold may not be in the store yet. Lost rows are published again when the queue has drained.
    """
    served = {queue for worker in store.workers.live() for queue in worker.info.queues}
    return {
        each.uid
        for each in store.evaluations.of(experiment)
        if each.status is EvaluationStatus.RUNNING and (each.queue or DEFAULT_QUEUE) in served
    }


def _known(store: Store, experiment: Experiment, collected: Collected) -> list[Evaluation]:
    """The collected evaluations that the experiment has already."""
    wanted = {(item.evaluation_path, item.evaluation_name) for item in collected.items}
    return [each for each in store.evaluations.of(experiment) if (each.spec.path, each.name) in wanted]

"""Submit: dataset → result store → row tasks → follow to the end."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field, replace

from doteval.broker.fair_queues import Priority
from doteval.broker.publisher import Publisher
from doteval.coordination.budget_guard import used_up
from doteval.coordination.claims import wait_for_other_brokers
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.coordination.ingest import ingest_dataset
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
from doteval.submission.follow import Following, ProgressObserver, broker_for, local_workers, queues_of
from doteval.supervision.fork_server import ForkServer
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions, rows_in_flight, slots_for

# Between two looks for rows that an earlier submission left pending.
_PUBLISH_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class SubmitOptions:
    """What `doteval submit` was told. None means the default.

    Without `broker`, a private Redis and `workers` local worker processes serve this submission.
    `target` says which rows to run, and names the experiment; `config` how they are run. `rows_per_task` is how many
    rows travel in one row task, None to choose. `queue` is for evaluations that name none. Of `devices` each local
    worker process sees one.
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
    """Where the results of a submission are. `storage` is the URL, with its password."""

    experiment: Experiment
    storage: str = field(repr=False)


def submit(options: SubmitOptions, observer: ProgressObserver, fork_server: ForkServer | None = None) -> Submission:
    """Evaluate on worker processes; what an earlier submission has done is not done again.

    A `fork_server` starts the local ones, if there are to be any.

    Returns when all is done, or, with `detach`, when all is published. KeyboardInterrupt stops
    following: local worker processes finish their rows in flight, the others stay pending.

    Raises EvaluationFileError, ColumnError, DatasetError, UnstorableValueError, ChangedError,
    UsageError, BrokerError and StoreError; BudgetError if the budget is used up already.
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
        at_work = _at_work(store, experiment)
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
        observer.began(experiment, evaluations, processes)
        supervisor: Supervisor | None = None
        if processes:
            worker_options = _worker_options(options, store, broker, queues_of(evaluations, options.queue))
            supervisor = stack.enter_context(
                local_workers(worker_options, processes, store, observer, options.devices, fork_server)
            )
            # Before the first rows are read, which may take longer than to load models. What was completed may stay so.
            if any(before.get(each.uid) is not EvaluationStatus.COMPLETED for each in evaluations):
                supervisor.start()
        slots = rows_in_flight(processes, options.concurrency)
        queues = {each.uid: each.queue or options.queue for each in evaluations}
        dispatcher = Dispatcher(store, publisher, DispatchOptions(options.rows_per_task, slots, queues))
        following = Following(store, dispatcher, evaluations, observer, supervisor)
        for evaluation in evaluations:
            store.rows.retry_failed(evaluation.id)
            if evaluation.uid not in at_work:
                dispatcher.restart(evaluation, priority=options.priority)
        for item, evaluation in zip(collected.items, evaluations, strict=True):
            try:
                _send_rows(store, following, item, evaluation, options)
            except UsageError as error:
                # It is not at work: a dataset that cannot be taken in ends it as it was, or as failed.
                status = before.get(evaluation.uid, EvaluationStatus.FAILED)
                cause = None if status is EvaluationStatus.RUNNING else EvaluationEnd.DATASET_REFUSED
                store.evaluations.set_status(evaluation.id, status, error.message, end_cause=cause)
                raise
        if options.detach:
            following.tell_if_alone()
        else:
            following.to_the_end()
        return Submission(experiment, store.raw_url)


def _worker_options(options: SubmitOptions, store: Store, broker: Broker, queues: tuple[str, ...]) -> WorkerOptions:
    """What local worker processes are told."""
    return WorkerOptions(
        paths=options.paths,
        storage=store.raw_url,
        broker=broker,
        queues=queues,
        concurrency=options.concurrency,
        slots=slots_for(options.concurrency),
        keyword=options.keyword,
        service="local",
        # Limits are in the private Redis, which ends with this command; the cache stays in its file.
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
        # What was there before is looked through for pending rows, which takes longer the more is done: now and then.
        if chunk.new or time.monotonic() >= next_publish:
            if not following.publish(evaluation):
                # Cancelled: the rest of the dataset is for the submission that goes on.
                break
            next_publish = time.monotonic() + _PUBLISH_SECONDS
        following.look()
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


def _at_work(store: Store, experiment: Experiment) -> set[str]:
    """The evaluations that worker processes may be at work on, for a submitter that lives or died.

    What they hold may not be in the store yet. Their lost rows are published when the queue has drained.
    """
    served = {queue for worker in store.workers.live() for queue in worker.info.queues}
    return {
        each.uid
        for each in store.evaluations.of(experiment)
        if each.status is EvaluationStatus.RUNNING and (each.queue or DEFAULT_QUEUE) in served
    }


def _known(store: Store, experiment: Experiment, collected: Collected) -> list[Evaluation]:
    """Those of the evaluations that the experiment has already."""
    wanted = {(item.evaluation_path, item.evaluation_name) for item in collected.items}
    return [each for each in store.evaluations.of(experiment) if (each.spec.path, each.name) in wanted]

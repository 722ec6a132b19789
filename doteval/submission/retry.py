"""`retry` makes failed rows of an experiment pending again and runs them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from doteval.broker.publisher import Publisher
from doteval.coordination.budget_guard import used_up
from doteval.coordination.claims import wait_for_other_brokers
from doteval.coordination.dispatcher import Dispatcher, DispatchOptions
from doteval.core.broker_url import Broker
from doteval.core.budgets import Budget, budget_error
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.core.results import ErrorClass
from doteval.core.run_config import RunConfig
from doteval.errors import ChangedError, NotFoundError, UsageError
from doteval.settings import load_settings
from doteval.store import Store
from doteval.submission.batch_mode import (
    check_batch_mode,
    check_batch_options,
    in_batch_mode_of,
    keep_batch_mode,
)
from doteval.submission.evaluation_files import common_root, file_of
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
from doteval.supervision.supervisor import Supervisor
from doteval.supervision.worker_config import WorkerOptions, rows_in_flight, slots_for
from doteval.tracing.commands import command_span

if TYPE_CHECKING:
    from doteval.pytest_runtime.embedded_session import Collected


@dataclass(frozen=True, slots=True)
class RetryOptions:
    """The options of `doteval retry`; None means the default, or all.

    classes: classes of errors
    row: the index of a row
    broker: None starts a private Redis and `workers` local worker processes
    queue: for evaluations that do not name their own; None is the queue that they were submitted to
    devices: each local worker process sees one of them
    budget: an empty one leaves the evaluations the budgets that they were submitted with
    max_errors: how many rows of an evaluation may fail before it is ended, None for any number
    replay: whether the rows replay the calls that they have made, instead of asking again
    batches: what the options of batch mode say, None without one
    needing_batch: the flags that were given without --batch, and that only batch mode has
    """

    classes: frozenset[ErrorClass] | None = None
    row: int | None = None
    broker: Broker | None = None
    queue: str | None = None
    workers: int | None = None
    devices: tuple[str, ...] = ()
    concurrency: int | None = None
    detach: bool = False
    budget: Budget = field(default_factory=Budget)
    max_errors: int | None = None
    replay: bool = False
    batches: RunConfig | None = None
    needing_batch: tuple[str, ...] = ()


def retry(
    options: RetryOptions,
    store: Store,
    evaluations: Sequence[Evaluation],
    observer: ProgressObserver,
    fork_server: ForkServer | None = None,
) -> int:
    """Run failed rows of an experiment's evaluations again, those that the options choose.

    Their errors are kept until new results are stored. Neither the dataset nor its file is needed. With a broker its
    workers run the rows; without one, local worker processes run them on the files that were submitted, started by a
    `fork_server`. Rows that ended evaluations left pending, cancelled or at their budget, run as well.

    Returns how many rows there were to run.
    Returns when all of them have completed or, with `detach`, when all are published.

    Raises UsageError, EvaluationFileError or ChangedError: when the options or the files need a change
    Raises BrokerError or StoreError: when they cannot be used
    Raises BudgetError: when the budget of an evaluation is used up already
    Raises WorkerError: when no local worker process can start
    """
    if evaluations:
        store.experiments.refuse_imported(
            evaluations[0].experiment,
            "cannot run rows again",
            "Run them with the tool that wrote the log, and import its new log under another --name.",
        )
    if options.detach and options.broker is None:
        raise UsageError(
            "--detach needs a broker that outlives this command",
            remedy="Name one with --broker URL or DOTEVAL_BROKER, and start workers with `doteval worker`.",
        )
    check_batch_options(options.needing_batch, marked=any(each.config.own_batch for each in evaluations))
    everything = options.classes is None and options.row is None
    failing = [
        each
        for each in evaluations
        if store.rows.count_failed(each.id, classes=options.classes, index=options.row)
        or (everything and _left_pending(each))
    ]
    if not failing:
        return 0
    for evaluation in failing:
        check_batch_mode(evaluation.spec, in_batch_mode_of(evaluation.config, options.batches))
        _check_complete(store, evaluation)
        stop = used_up(store, evaluation.experiment, options.budget or evaluation.config.budget)
        if stop is not None:
            raise budget_error(evaluation.experiment.name, stop, pending=0)
    if options.broker is not None:
        return _run(store, failing, options, observer)
    # Imported here: a retry by workers elsewhere need not wait for pytest.
    from doteval.pytest_runtime.embedded_session import with_collected

    retried: list[int] = []
    root = common_root(failing)
    again = "Submit it from where it is now, which runs failed rows too: doteval submit FILE --experiment NAME"
    nodes = tuple(f"{file_of(evaluation, root, again)}::{evaluation.name}" for evaluation in failing)

    def body(collected: Collected) -> None:
        _check_code(collected, failing)
        retried.append(_run(store, failing, options, observer, paths=nodes, root=str(root), fork_server=fork_server))

    with_collected(nodes, body, root=str(root))
    return retried[0]


def _run(
    store: Store,
    evaluations: list[Evaluation],
    options: RetryOptions,
    observer: ProgressObserver,
    *,
    paths: tuple[str, ...] = (),
    root: str | None = None,
    fork_server: ForkServer | None = None,
) -> int:
    begun: list[Evaluation] = []
    with contextlib.ExitStack() as stack:
        stack.callback(store_late_summaries, store, begun, observer)
        present = stack.enter_context(presence(store, "retry", begun))
        broker = broker_for(stack, options.broker)
        publisher = stack.enter_context(contextlib.closing(Publisher(broker, options.queue or DEFAULT_QUEUE)))
        publisher.connect()
        wait_for_other_brokers(store, evaluations, on_message=observer.note, private=broker.is_private)
        evaluations = [
            _placed(store, store.evaluations.by_uid(each.uid), options.queue, broker.private) for each in evaluations
        ]
        processes = 0 if options.broker else options.workers or len(options.devices) or os.cpu_count() or 1
        marked = 0
        client_config, name = load_settings().client_config(), evaluations[0].experiment.name
        traceparent = stack.enter_context(command_span("retry", name, client_config.tracing))
        batches = options.batches
        for evaluation in evaluations:
            if options.budget:
                store.evaluations.reconfigure(evaluation.id, lambda config: config.with_budget(options.budget))
            # Rows that run in batch mode now go on in it.
            is_running = evaluation.status is EvaluationStatus.RUNNING
            in_batches = in_batch_mode_of(evaluation.config, batches).batch
            if not is_running or (batches is not None and in_batches):
                store.evaluations.reconfigure(evaluation.id, lambda config: in_batch_mode_of(config, batches))
            if evaluation.config.replay != options.replay:
                store.evaluations.reconfigure(evaluation.id, lambda config: replace(config, replay=options.replay))
            if evaluation.config.traceparent != traceparent:
                store.evaluations.reconfigure(evaluation.id, lambda config: replace(config, traceparent=traceparent))
            marked += store.rows.retry_failed(evaluation.id, classes=options.classes, index=options.row)
            marked += evaluation.counts.pending if _left_pending(evaluation) else 0
            # Only now: a running evaluation without pending rows would be completed.
            store.evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
            current = store.evaluations.by_uid(evaluation.uid)
            begun.append(keep_batch_mode(store, current, observer.note, was_running=is_running))
        present.follow(begun)
        slots = rows_in_flight(processes, options.concurrency)
        queues = {each.uid: each.queue or DEFAULT_QUEUE for each in evaluations}
        dispatcher = Dispatcher(store, publisher, DispatchOptions(slots=slots, queues=queues, total=marked))
        supervisor: Supervisor | None = None
        if processes:
            worker_options = WorkerOptions(
                paths=paths,
                root=root,
                storage=store.raw_url,
                broker=broker,
                queues=queues_of(evaluations, DEFAULT_QUEUE),
                concurrency=options.concurrency,
                slots=slots_for(options.concurrency),
                service="local",
                client_config=replace(client_config, broker=broker.url),
            )
            supervisor = stack.enter_context(
                local_workers(worker_options, processes, store, observer, options.devices, fork_server)
            )
        following = Following(store, dispatcher, evaluations, observer, supervisor, max_errors=options.max_errors)
        observer.began(evaluations[0].experiment, following.current(), processes)
        if supervisor is not None:
            supervisor.start()
        else:
            following.note_changed_files()
        for evaluation in evaluations:
            # Rows of a running evaluation are on their way; lost ones are found when the queue has drained.
            if evaluation.status is not EvaluationStatus.RUNNING:
                dispatcher.restart(evaluation, was_completed=evaluation.status is EvaluationStatus.COMPLETED)
            following.publish(evaluation)
        if options.detach:
            following.note_unserved_queues()
        else:
            following.to_the_end()
        return marked


def _left_pending(evaluation: Evaluation) -> bool:
    """Whether it has ended, cancelled or at its budget for example, with rows that have no result."""
    return evaluation.status is not EvaluationStatus.RUNNING and evaluation.counts.pending > 0


def _placed(store: Store, evaluation: Evaluation, queue: str | None, private: str | None) -> Evaluation:
    """The evaluation with this broker, on the queue that it names itself, else on `queue`, else on its old one."""
    known = evaluation.config.queue
    placed = (known if evaluation.config.queue_is_own else queue or known) or DEFAULT_QUEUE
    if (placed, private) == (known, evaluation.config.private_broker):
        return evaluation

    def place(config: RunConfig) -> RunConfig:
        return replace(config, queue=placed, private_broker=private)

    store.evaluations.reconfigure(evaluation.id, place)
    return replace(evaluation, spec=replace(evaluation.spec, config=place(evaluation.config)))


def _check_complete(store: Store, evaluation: Evaluation) -> None:
    if not store.rows.dataset_state(evaluation.id).complete:
        raise UsageError(
            f"the dataset of {evaluation.spec.nodeid} has not been read to its end",
            remedy="Submit it again, which runs failed rows too: doteval submit FILE --experiment NAME",
        )


def _check_code(collected: Collected, evaluations: Sequence[Evaluation]) -> None:
    """Raise ChangedError if the files differ from those that the evaluations ran with: workers would refuse them."""
    from doteval.pytest_runtime.fingerprint import differing_files, fingerprint

    ours = {(item.evaluation_path, item.evaluation_name): item for item in collected.items}
    for evaluation in evaluations:
        item = ours.get((evaluation.spec.path, evaluation.name))
        if item is None:
            raise NotFoundError(f"there is no evaluation {evaluation.spec.nodeid} below {collected.root} any more")
        differing = differing_files(evaluation.spec.fingerprint, fingerprint(item))
        if differing:
            raise ChangedError(
                f"{evaluation.spec.nodeid} is not what the experiment began with: {', '.join(differing)} has changed",
                remedy="Run failed rows with the new code: doteval submit FILE --experiment NAME --allow-changed",
            )

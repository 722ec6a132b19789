"""`doteval status`: how far an experiment is, and what happens next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from doteval.analysis.figures import count, names
from doteval.cli.options import EXPERIMENT_NAME, existing_store, json_option, storage_option
from doteval.core.tables import Table
from doteval.core.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.broker_url import Broker
    from doteval.store import Store, WorkerState
    from doteval.submission.status import ExperimentStatus

# The command shows so many failed rows of each evaluation, and so many dead worker processes.
_SHOWN = 5


@click.command("status")
@click.argument("name", type=EXPERIMENT_NAME)
@storage_option
@click.option("--broker", metavar="URL", help="Also count the messages that wait on this broker.")
@click.option("--queue", metavar="NAME", help="Queue to count.  [default: those of its evaluations]")
@json_option
def command(name: str, storage: str | None, broker: str | None, queue: str | None, as_json: bool) -> None:
    """Show how far the experiment NAME is.

    Shows where its rows are, which worker processes are live and which have died, the most recent errors,
    and what happens next.
    """
    from doteval.cli import documents, terminal
    from doteval.settings import load_settings
    from doteval.submission.status import experiment_status

    settings = load_settings(broker=broker, queue=queue)
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        queues = list(settings.queues)
        if queue is None:
            queues = [each.queue or queues[0] for each in store.evaluations.of(experiment) if not each.is_private]
        queued, trouble = (None, None) if settings.message_broker is None else _ask(settings.message_broker, queues)
        status = experiment_status(store, experiment, queue=settings.queues[0], queued=queued)
        if as_json:
            documents.write(
                {
                    "experiment": documents.experiment(experiment),
                    "storage": store.url,
                    "evaluations": [
                        {
                            **documents.evaluation_progress(found),
                            **documents.work_time(store.evaluations.work_time(found.evaluation.id)),
                            "last_errors": [
                                documents.attempt(each)
                                for each in store.attempts.last_failures(found.evaluation.id, _SHOWN)
                            ],
                        }
                        for found in status.evaluations
                    ],
                    "workers": [documents.worker(found) for found in status.live],
                    "dead_workers": [documents.worker(found) for found in status.dead],
                    "failed_starts": [documents.worker(found) for found in status.failed_starts],
                    "messages_queued": None if queued is None else sum(queued.values()),
                    "messages_by_queue": queued,
                    "broker_error": trouble,
                }
            )
            return
        console = terminal.console()
        if not status.evaluations:
            console.print(f"The experiment {name!r} has no evaluations yet")
            return
        _print(console, store, status)
        if trouble:
            console.print(trouble, style="yellow")


def _ask(broker: Broker, queues: Sequence[str]) -> tuple[Mapping[str, int] | None, str | None]:
    """Return the number of messages in each queue, or the reason why it is unknown."""
    from doteval.broker.publisher import Publisher
    from doteval.core.queues_and_devices import DEFAULT_QUEUE
    from doteval.errors import BrokerError

    publisher = Publisher(broker, DEFAULT_QUEUE)
    try:
        return {queue: publisher.queued(queue=queue) for queue in dict.fromkeys(queues)}, None
    except BrokerError as error:
        return None, str(error)
    finally:
        publisher.close()


def _print(console: Console, store: Store, status: ExperimentStatus) -> None:
    from doteval.cli import terminal
    from doteval.cli.records import failure_line

    columns = ("evaluation", "status", "rows", "done", "failed", "skipped", "pending", "in flight")
    table = Table(*columns, left=2)
    called = names([found.evaluation for found in status.evaluations])
    for found in status.evaluations:
        evaluation, counts = found.evaluation, found.evaluation.counts
        table.add_row(
            called[evaluation.id],
            terminal.status_cell(evaluation.status, abandoned=found.abandoned),
            count(counts.total),
            count(counts.done),
            count(counts.failed),
            count(counts.skipped),
            count(None if counts.total is None else counts.pending),
            count(found.held),
        )
    terminal.print_table(console, table)
    for found in status.evaluations:
        name = called[found.evaluation.id]
        if found.evaluation.reason:
            console.print(f"{name}: {found.evaluation.reason}", style="yellow")
        for sentence in found.plan:
            console.print(f"{name}: {sentence}")
        failures = store.attempts.last_failures(found.evaluation.id, _SHOWN)
        if failures:
            console.print(f"The most recent errors of {name}:")
        for attempt in failures:
            console.print(failure_line(attempt))
    console.print(f"\n{_workers(status.live)}")
    for worker in [each for each in status.live if each.broker_silence is not None][:_SHOWN]:
        console.print(_unanswered(worker), style="yellow")
    for worker in status.dead[-_SHOWN:]:
        console.print(_death(worker), style="yellow")
    if len(status.dead) > _SHOWN:
        console.print(f"and {len(status.dead) - _SHOWN} more that died before")
    for worker in status.failed_starts[-_SHOWN:]:
        console.print(_failed_start(worker), style="yellow")
    for queue, waiting in (status.queued or {}).items():
        where = "the queue" if len(status.queued or {}) == 1 else f"the queue {queue!r}"
        console.print(f"{counted(waiting, 'message')} in {where}")


def _workers(workers: Sequence[WorkerState]) -> str:

    if not workers:
        return "No worker processes"
    states = Counter(worker.state for worker in workers)
    held = sum(held.rows for worker in workers for held in worker.holding)
    described = ", ".join(f"{number:,} {state}" for state, number in states.items())
    return f"{counted(len(workers), 'worker process')} ({described}), holding {counted(held, 'row')}"


def _unanswered(worker: WorkerState) -> str:
    info = worker.info
    return (
        f"{info.service} (process {info.pid} on {info.hostname}) takes no row task: its broker has not answered it for "
        f"{worker.broker_silence or 0:,.0f} s; it makes its connections anew again and again"
    )


def _death(worker: WorkerState) -> str:
    info = worker.info
    how = worker.reason or f"was last heard of {worker.age:,.0f} s ago"
    return f"dead: {info.service} (process {info.pid} on {info.hostname}) {how}"


def _failed_start(worker: WorkerState) -> str:
    info = worker.info
    return f"{info.service} (process {info.pid} on {info.hostname}) {worker.reason}"

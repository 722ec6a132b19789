"""`doteval status`: how far an experiment is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from doteval.cli.options import existing_store, json_option, storage_option

if TYPE_CHECKING:
    from doteval.store import WorkerState


@click.command("status")
@click.argument("name")
@storage_option
@json_option
def command(name: str, storage: str | None, as_json: bool) -> None:
    """Say how far the experiment NAME is, and which worker processes live."""
    from doteval.cli import documents, terminal

    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment)
        workers = store.workers.live()
        if as_json:
            documents.write(
                {
                    "experiment": documents.experiment(experiment),
                    "storage": store.url,
                    "evaluations": [documents.evaluation(found) for found in evaluations],
                    "workers": [documents.worker(found) for found in workers],
                }
            )
            return
        console = terminal.console()
        if not evaluations:
            console.print(terminal.plain(f"The experiment {name!r} has no evaluations yet"))
            return
        table = terminal.table("evaluation", "status", "rows", "done", "failed", "skipped", "pending", left=2)
        called = terminal.names(evaluations)
        for found in evaluations:
            counts = found.counts
            table.add_row(
                called[found.id],
                terminal.status_text(found.status),
                terminal.count(counts.total),
                terminal.count(counts.done),
                terminal.count(counts.failed),
                terminal.count(counts.skipped),
                terminal.count(None if counts.total is None else counts.pending),
            )
        console.print(table)
        for found in evaluations:
            if found.reason:
                console.print(terminal.plain(f"{called[found.id]}: {found.reason}"), style="yellow")
        console.print(f"\n{_workers(workers)}")


def _workers(workers: Sequence[WorkerState]) -> str:
    from doteval.cli import terminal

    if not workers:
        return "No worker processes"
    states = Counter(worker.state for worker in workers)
    held = sum(held.last - held.first + 1 for worker in workers for held in worker.holding)
    described = ", ".join(f"{number:,} {state}" for state, number in states.items())
    return f"{terminal.few(len(workers), 'worker process')} ({described}), holding {terminal.few(held, 'row')}"

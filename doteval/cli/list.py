"""`doteval list`: the experiments of a result store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from doteval.cli.options import existing_store, json_option, storage_option
from doteval.core.tables import Table

if TYPE_CHECKING:
    from doteval.store import ExperimentOverview, Store


@click.command("list")
@click.option("--name", metavar="TEXT", help="Only experiments whose name contains this, ignoring case.")
@storage_option
@json_option
def command(name: str | None, storage: str | None, as_json: bool) -> None:
    """List experiments, the newest first."""
    from doteval.cli import documents, terminal

    with existing_store(storage) as store:
        found = store.experiments.overviews(name)
        if as_json:
            lines = [documents.overview(line, abandoned=_is_abandoned(store, line)) for line in found]
            documents.write({"storage": store.url, "experiments": lines})
            return
        console = terminal.console()
        if not found:
            where = f" whose name contains {name!r}" if name else ""
            console.print(f"No experiments{where} in {store.url}")
            return
        table = Table("experiment", "status", "started", "evaluations", "rows", "failed", "skipped", left=3)
        for line in found:
            table.add_row(
                line.experiment.name,
                terminal.status_cell(line.status, abandoned=_is_abandoned(store, line)),
                f"{line.experiment.created_at.astimezone():%Y-%m-%d %H:%M}",
                terminal.count(line.evaluations),
                terminal.share(line.counts),
                terminal.count(line.counts.failed),
                terminal.count(line.counts.skipped),
            )
        terminal.print_table(console, table)


def _is_abandoned(store: Store, line: ExperimentOverview) -> bool:
    """Whether evaluations of an experiment are running by their status, and nobody runs any of them."""
    if line.status != "running":
        return False
    from doteval.coordination.claims import nobody_runs

    running = [each for each in store.evaluations.of(line.experiment) if each.status == "running"]
    return all(nobody_runs(store, each) for each in running)

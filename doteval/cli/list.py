"""`doteval list`: the experiments of a result store."""

from __future__ import annotations

import click

from doteval.cli.options import existing_store, json_option, storage_option
from doteval.core.tables import Table


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
            documents.write({"storage": store.url, "experiments": [documents.overview(line) for line in found]})
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
                terminal.status_cell(line.status),
                f"{line.experiment.created_at.astimezone():%Y-%m-%d %H:%M}",
                terminal.count(line.evaluations),
                terminal.share(line.counts),
                terminal.count(line.counts.failed),
                terminal.count(line.counts.skipped),
            )
        terminal.print_table(console, table)

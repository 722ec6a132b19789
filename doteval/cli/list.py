"""`doteval list`: the experiments of a result store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from doteval.analysis.figures import count, share
from doteval.cli.options import existing_store, experiment_options, json_option, storage_option
from doteval.core.experiments import EvaluationStatus
from doteval.core.tables import Table
from doteval.core.times import parse_since

if TYPE_CHECKING:
    from doteval.store import ExperimentLabels, ExperimentOverview, Store


@click.command("list")
@experiment_options
@click.option(
    "--status", type=click.Choice([each.value for each in EvaluationStatus]), help="Only those of this status."
)
@click.option(
    "--search",
    metavar="TEXT",
    help="Only those with this in their name, tags, note, command or branch, or at the beginning of their commit.",
)
@click.option(
    "--sort",
    default="-started",
    show_default=True,
    metavar="KEY",
    help="started, active, name, status, evaluations, rows, failed, cost, branch or user; "
    "-KEY from the last to the first.",
)
@storage_option
@json_option
def command(
    name: str | None,
    tag: tuple[str, ...],
    since: str | None,
    status: str | None,
    branch: str | None,
    search: str | None,
    sort: str,
    storage: str | None,
    as_json: bool,
) -> None:
    """List experiments, the newest first.

    \b
    doteval list --tag paper --since 7d
    doteval list --search prompt --sort -failed
    """
    from doteval.cli import documents, terminal
    from doteval.store import ExperimentFilter, sort_overviews

    wanted = ExperimentFilter(
        tag,
        None if since is None else parse_since(since),
        None if status is None else EvaluationStatus(status),
        branch,
        search,
    )
    with existing_store(storage) as store:
        found = sort_overviews(filter(wanted.matches, store.experiments.overviews(name)), sort)
        if as_json:
            lines = [documents.overview(line, abandoned=_is_abandoned(store, line)) for line in found]
            documents.write({"storage": store.url, "experiments": lines})
            return
        console = terminal.console()
        if not found:
            where = f" whose name contains {name!r}" if name else ""
            rest = " that match" if wanted != ExperimentFilter() else ""
            console.print(f"No experiments{where}{rest} in {store.url}")
            return
        # A column of tags only where there are some, so that the table fits narrow terminals as long as it can.
        tags = ["tags"] if any(line.labels.tags or line.labels.is_baseline for line in found) else []
        table = Table(
            "experiment", "status", "started", *tags, "evaluations", "rows", "failed", "skipped", left=3 + len(tags)
        )
        for line in found:
            table.add_row(
                line.experiment.name,
                terminal.status_cell(line.status, abandoned=_is_abandoned(store, line)),
                f"{line.experiment.created_at.astimezone():%Y-%m-%d %H:%M}",
                *([_marks(line.labels)] if tags else []),
                count(line.evaluations),
                share(line.counts),
                count(line.counts.failed),
                count(line.counts.skipped),
            )
        terminal.print_table(console, table)


def _marks(labels: ExperimentLabels) -> str:
    return ", ".join([*(["(baseline)"] if labels.is_baseline else []), *labels.tags])


def _is_abandoned(store: Store, line: ExperimentOverview) -> bool:
    if line.status is not EvaluationStatus.RUNNING:
        return False
    from doteval.coordination.claims import is_left_by_all

    return is_left_by_all(store, line.experiment)

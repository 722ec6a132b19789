"""`doteval show`: what came out of an experiment."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.options import existing_store, json_option, storage_option

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.experiments import Evaluation
    from doteval.results import Record
    from doteval.store import Store

# Different errors of one evaluation that --errors shows.
_ERRORS_SHOWN = 50


@click.command("show")
@click.argument("name")
@click.option("--evaluation", metavar="TEXT", help="Only evaluations whose file::name contains this.")
@click.option("--errors", is_flag=True, help="Also the errors of failed rows, those that are alike in one line.")
@click.option("--full", is_flag=True, help="Also every record: row, scores, prompt, response, error.")
@storage_option
@json_option
def command(name: str, evaluation: str | None, errors: bool, full: bool, storage: str | None, as_json: bool) -> None:
    """Show the metrics of the experiment NAME."""
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = _chosen(store.evaluations.of(experiment), evaluation, name)
        if as_json:
            from doteval.cli import documents

            document = {
                "experiment": documents.experiment(experiment),
                "storage": store.url,
                "evaluations": documents.Streamed(
                    _document(store, found, errors=errors, full=full) for found in evaluations
                ),
            }
            documents.write(document)
            return
        from doteval.cli import terminal

        console = terminal.console()
        for found in evaluations:
            print_evaluation(console, store, found)
            if errors:
                _print_errors(console, store, found)
            if full:
                _print_records(console, store, found)
        if not evaluations:
            console.print(terminal.plain(f"The experiment {name!r} has no evaluations yet"))
        elif not errors and any(found.counts.failed for found in evaluations):
            console.print(terminal.plain(f"Failed rows: doteval show {name!r} --errors"))


def print_evaluation(console: Console, store: Store, evaluation: Evaluation) -> None:
    """The heading of an evaluation and the table of its metrics."""
    from rich.text import Text

    from doteval.cli import terminal
    from doteval.summary import summarize

    counts = evaluation.counts
    console.print(
        Text.assemble((terminal.plain(evaluation.spec.nodeid), "bold"), "  ", terminal.status_text(evaluation.status))
    )
    if evaluation.reason:
        console.print(terminal.plain(evaluation.reason), style="red")
    table = terminal.table("score", "metric", "value", "95% interval", "n", "errors", "skipped", "time", left=2)
    rest = (terminal.count(counts.failed), terminal.count(counts.skipped), terminal.duration(_seconds(evaluation)))
    notes = []
    for score in summarize(store.results.score_columns(evaluation.id), counts):
        for metric in score.metrics:
            table.add_row(
                terminal.plain(score.name),
                terminal.plain(metric.name),
                terminal.figure(metric.value),
                terminal.interval(metric.interval),
                terminal.count(metric.n),
                *rest,
            )
            if metric.note:
                notes.append(f"{score.name} {metric.name}: {metric.note}")
    if not table.row_count:
        table.add_row("no scores", "", "-", "-", "0", *rest)
    console.print(table)
    if counts.pending or counts.total is None:
        notes.append(f"{terminal.share(counts)} rows are finished; the figures are of these")
    for note in notes:
        console.print(terminal.plain(note), style="yellow")
    console.print()


def _print_errors(console: Console, store: Store, evaluation: Evaluation) -> None:
    from doteval.cli import terminal

    found = store.results.errors(evaluation.id, _ERRORS_SHOWN)
    if not found:
        return
    table = terminal.table("error", "message", "class", "rows", "for example row", left=3)
    for error in found:
        table.add_row(
            terminal.plain(error.type),
            terminal.plain(error.message),
            error.error_class.value,
            terminal.count(error.count),
            str(error.example),
        )
    console.print(table)
    if len(found) == _ERRORS_SHOWN:
        console.print(f"These are the {_ERRORS_SHOWN} most frequent errors.", style="yellow")
    console.print()


def _print_records(console: Console, store: Store, evaluation: Evaluation) -> None:
    for record in store.results.records(evaluation.id):
        _print_record(console, record)
    console.print()


def _print_record(console: Console, record: Record) -> None:
    from rich.text import Text

    from doteval.cli import terminal

    row, outcome = record.row, record.outcome
    sample = f", sample {row.sample}" if row.sample else ""
    scores = "".join(f"  {score.name}={score.value}" for score in outcome.scores)
    console.print(
        Text(f"row {row.index}{sample}", style="bold").append(
            terminal.plain(f"  {outcome.status.value}  {terminal.duration(outcome.seconds)}{scores}"), style="not bold"
        )
    )
    details: list[tuple[str, Any]] = [*row.values.items()]
    details += [("prompt", outcome.prompt), ("response", outcome.model_response)]
    details += [("metadata", dict(outcome.metadata) or None)]
    if outcome.error is not None:
        details += [("error", f"{outcome.error.type}: {outcome.error.message}")]
        details += [("traceback", f"\n{outcome.error.traceback}" if outcome.error.traceback else None)]
    for name, value in details:
        if value is not None:
            console.print(terminal.plain(f"  {name}: {value}"), soft_wrap=True)


def _document(store: Store, evaluation: Evaluation, *, errors: bool, full: bool) -> dict[str, Any]:
    from doteval.cli import documents
    from doteval.summary import summarize

    summary = summarize(store.results.score_columns(evaluation.id), evaluation.counts)
    document = {
        **documents.evaluation(evaluation),
        "seconds": _seconds(evaluation),
        "scores": documents.scores(summary),
    }
    if errors:
        found = store.results.errors(evaluation.id, _ERRORS_SHOWN)
        document["errors"] = [documents.error(error) for error in found]
    if full:
        document["records"] = documents.Streamed(map(documents.record, store.results.records(evaluation.id)))
    return document


def _chosen(evaluations: Sequence[Evaluation], text: str | None, experiment: str) -> list[Evaluation]:
    chosen = [found for found in evaluations if text is None or text in found.spec.nodeid]
    if evaluations and not chosen:
        from doteval.errors import NotFoundError

        raise NotFoundError(
            f"no evaluation of the experiment {experiment!r} contains {text!r}",
            remedy="It has " + ", ".join(found.spec.nodeid for found in evaluations) + ".",
        )
    return chosen


def _seconds(evaluation: Evaluation) -> float:
    """From the beginning of the evaluation to its end, or until now."""
    return ((evaluation.finished_at or datetime.now(UTC)) - evaluation.created_at).total_seconds()

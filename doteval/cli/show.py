"""`doteval show`: the metrics, errors and records of an experiment."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from doteval.analysis import record_documents
from doteval.analysis.figures import count, figure, interval, names, rows_of
from doteval.cli.options import (
    EXPERIMENT_NAME,
    FIELDS,
    errors_as_option,
    evaluation_option,
    existing_store,
    json_option,
    storage_option,
)
from doteval.core.liveness import DISPATCH_SECONDS
from doteval.core.tables import Table
from doteval.core.wording import counted, duration

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.summary import ErrorsAs, Summary
    from doteval.core.experiments import Evaluation, Experiment, WorkTime
    from doteval.core.results import ErrorClass
    from doteval.store import ErrorCount, Store

# Worker processes store the metrics of an evaluation that has ended within so many seconds, if its submitter does not.
_STORED_WITHIN_SECONDS = 4 * DISPATCH_SECONDS
_LOOK_SECONDS = 0.2
# What is read while rows end is read again, up to so many times.
_MOST_READINGS = 5
# A longer number is no index but a key.
_DIGITS_OF_INDEX = 19
_LEAST_OF_KEY = 7


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one evaluation, as `print_evaluation` shows them.

    summary: the metrics, with failed rows counted as the user asked.
    as_false: the metrics with failed rows counted as False.
    classes: the number of failed rows by the class of their error.
    time: how long the evaluation took.
    """

    summary: Summary
    as_false: Summary
    classes: Mapping[ErrorClass, int]
    time: WorkTime


@click.command("show")
@click.argument("name", type=EXPERIMENT_NAME)
@evaluation_option
@click.option("--errors", is_flag=True, help="Also print the errors of failed rows, equal ones in one line.")
@click.option("--full", is_flag=True, help="Also print every record: row, scores, prompt, response, error.")
@click.option(
    "--row",
    metavar="KEY|N",
    help="Only the row with this index, or the beginning of its key: every attempt, and its calls to models.",
)
@click.option("--wrong", is_flag=True, help="Records of done rows where a score is false or 0.")
@click.option("--failed", is_flag=True, help="Records of failed rows.")
@click.option("--where", metavar="FILTER", help="Records that match, as in: score.f1 < 0.5 and row.lang = 'de'.")
@click.option(
    "--sort", type=FIELDS, metavar="FIELD", help="Records by this field; -FIELD from the largest to the smallest."
)
@click.option("--limit", type=click.IntRange(min=0), metavar="N", help="So many records; 0 for all.  [default: 20]")
@click.option(
    "--columns", type=FIELDS, metavar="FIELDS", help="Records with these fields, as in index,score.f1,metadata.tool."
)
@click.option("--group-by", type=FIELDS, metavar="FIELD", help="Means of the scores by the values of this field.")
@click.option(
    "--cluster", metavar="COLUMN", help="Rows with the same value in this column are not independent: wider intervals."
)
@errors_as_option
@storage_option
@json_option
def command(
    name: str,
    evaluation: str | None,
    errors: bool,
    full: bool,
    row: str | None,
    cluster: str | None,
    errors_as: ErrorsAs,
    storage: str | None,
    as_json: bool,
    **selecting: Any,
) -> None:
    """Show the metrics of the experiment NAME, or records of it.

    With a filter, an order, columns or groups it shows records, 20 of each evaluation. The fields are
    score.NAME, row.COLUMN, metadata.KEY, index, key, sample, status, error, error_type, error_class, prompt, response,
    tokens, prompt_tokens, completion_tokens, cost, seconds, attempts, worker and label.

    \b
    doteval show first --wrong --full
    doteval show first --where "score.f1 < 0.5 and response ~ 'sorry'" --sort -tokens
    doteval show first --group-by row.category --cluster text_id
    doteval show first --row 17
    """
    selects = any(selecting.values()) or selecting["limit"] is not None
    if cluster is not None and row is not None:
        raise click.UsageError("--cluster is for metrics and groups, and --row shows a record.")
    if selects and cluster is not None and selecting["group_by"] is None:
        raise click.UsageError("--cluster is for metrics and groups: leave it out, or add --group-by.")
    if selects and (row is not None or errors):
        raise click.UsageError("--row and --errors cannot be combined with options that select records.")
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        if cluster is not None:
            from doteval.store.clusters import check_columns

            check_columns(evaluations, cluster)
        if selects:
            selecting["cluster"] = cluster
            _show_selected(store, experiment, evaluations, selecting, full, errors_as, as_json=as_json)
            return
        asked = _Asked(errors, full, errors_as, cluster)
        indexes = None if row is None else _indexes(store, evaluations, row)
        if as_json:
            _write_document(store, experiment, evaluations, asked, indexes)
        elif indexes is not None:
            _print_row(store, evaluations, indexes)
        else:
            _print_metrics(store, experiment, evaluations, asked)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to show of each evaluation besides its metrics, and how to compute these: see the options."""

    errors: bool
    full: bool
    errors_as: ErrorsAs
    cluster: str | None


def _print_metrics(store: Store, experiment: Experiment, evaluations: Sequence[Evaluation], asked: _Asked) -> None:
    from doteval.cli import terminal
    from doteval.cli.origin import print_origin
    from doteval.cli.records import print_errors, print_records

    console = terminal.console()
    print_origin(console, store.provenance.of(experiment), store.labels.of(experiment))
    for found in evaluations:
        figures = read_figures(store, found, asked.errors_as)
        print_evaluation(console, found, _clustered(store, found, figures, asked.cluster))
        if asked.errors:
            print_errors(console, store, found)
        if asked.full:
            print_records(console, store, found)
    if not evaluations:
        console.print(f"The experiment {experiment.name!r} has no evaluations yet")
    elif not asked.errors and any(found.counts.failed for found in evaluations):
        console.print(f"Failed rows: doteval show {shlex.quote(experiment.name)} --errors", soft_wrap=True)


def _print_row(store: Store, evaluations: Sequence[Evaluation], indexes: Mapping[int, int]) -> None:
    from doteval.cli.pager import paged
    from doteval.cli.records import print_row

    with paged() as console:
        for found in evaluations:
            if (index := indexes.get(found.id)) is not None:
                print_heading(console, found)
                print_row(console, store, found, index)


def _write_document(
    store: Store,
    experiment: Experiment,
    evaluations: Sequence[Evaluation],
    asked: _Asked,
    indexes: Mapping[int, int] | None,
) -> None:
    from doteval.cli import documents

    documents.write(
        {
            "experiment": {
                **documents.experiment(experiment),
                **documents.labels(store.labels.of(experiment)),
                "commands": [documents.provenance(each) for each in store.provenance.of(experiment)],
            },
            "storage": store.url,
            "evaluations": documents.Streamed(
                _document(store, found, asked, None if indexes is None else indexes[found.id])
                for found in evaluations
                if indexes is None or found.id in indexes
            ),
        }
    )


def _show_selected(
    store: Store,
    experiment: Experiment,
    evaluations: Sequence[Evaluation],
    selecting: Mapping[str, Any],
    full: bool,
    errors_as: ErrorsAs,
    *,
    as_json: bool,
) -> None:
    from doteval.cli.selected import SelectOptions, print_selected, select, selected_document

    selected = select(store, evaluations, SelectOptions(**selecting), full=full, failed_as_false=errors_as == "false")
    if as_json:
        from doteval.cli import documents

        as_columns = selecting["columns"] is not None
        found = (selected_document(store, each, selected, as_columns=as_columns) for each in evaluations)
        documents.write(
            {
                "experiment": documents.experiment(experiment),
                "storage": store.url,
                "evaluations": documents.Streamed(found),
            }
        )
        return
    from doteval.cli.pager import paged

    with paged() as console:
        for evaluation in evaluations:
            print_heading(console, evaluation)
            print_selected(console, store, evaluation, selected)


def print_heading(console: Console, evaluation: Evaluation) -> None:
    """Print the file and name of an evaluation, its status, and the reason for it."""
    from rich.text import Text

    from doteval.cli import terminal

    style = terminal.STATUS_STYLES[evaluation.status]
    console.print(
        Text.assemble((evaluation.spec.nodeid, "bold"), "  ", (evaluation.status.value, style)), soft_wrap=True
    )
    if evaluation.reason:
        console.print(evaluation.reason, style="yellow" if evaluation.status == "skipped" else "red")


def print_evaluation(
    console: Console, evaluation: Evaluation, figures: Figures, errors: Sequence[ErrorCount] = ()
) -> None:
    """Print an evaluation: heading, warnings, table of metrics, the number of failed rows by class of error, and notes.

    If rows failed, the table shows both figures: with failed rows as False, and without them. The most frequent
    `errors` are printed in one line each.
    """
    from doteval.cli import terminal

    counts, errors_as = evaluation.counts, figures.summary.errors_as
    print_heading(console, evaluation)
    if evaluation.dataset_source is not None:
        console.print(f"dataset {evaluation.dataset_source}", style="dim", soft_wrap=True)
    for warning in figures.summary.warnings:
        console.print(f"WARNING: {warning}", style="bold red")
    other = [] if not counts.failed else ["without errors" if errors_as == "false" else "errors as False"]
    columns = ("score", "metric", "value", "95% interval", "n", "errors", "skipped", "time", *other)
    table = Table(*columns, left=2)
    rest = (count(counts.failed), count(counts.skipped), duration(figures.time.worked))
    for score in figures.summary:
        for metric in score.metrics:
            second = metric.without_failed if errors_as == "false" else figures.as_false[score.name][metric.name]
            table.add_row(
                score.name,
                metric.name,
                figure(metric.value),
                interval(metric.interval),
                count(metric.n),
                *rest,
                *([figure(second)] if other else []),
            )
    if not len(table):
        table.add_row("no scores", "", "-", "-", "0", *rest, *("-" for _ in other))
    terminal.print_table(console, table)
    if figures.classes:
        named = ", ".join(f"{kind.value} {count(number)}" for kind, number in figures.classes.items())
        again = "" if sum(figures.classes.values()) == counts.failed else "; some of them will run again"
        console.print(f"Errors by class: {named}{again}")
    for error in errors:
        console.print(str(error), style="red")
    notes = [*evaluation.dataset_notes, *figures.summary.notes]
    if unknown := figures.summary.unknown_metrics:
        how = (
            "its value is stored when the evaluation has ended"
            if evaluation.status == "running"
            else f"doteval recompute {shlex.quote(evaluation.experiment.name)} loads it"
        )
        notes.append(f"Only the evaluation file may know {', '.join(unknown)}; {how}")
    if evaluation.repaid_rows:
        notes.append(
            f"{counted(evaluation.repaid_rows, 'row')} asked something else of a model than before "
            f"{'its' if evaluation.repaid_rows == 1 else 'their'} process died, and so paid for calls again"
        )
    if counts.pending or counts.total is None:
        notes.append(f"{rows_of(counts)} are finished; the figures are for these")
    for note in notes:
        console.print(note, style="yellow")
    console.print()


def read_figures(store: Store, evaluation: Evaluation, errors_as: ErrorsAs = "false") -> Figures:
    """Read the results of an evaluation, for `print_evaluation`.

    The metrics are those that were stored when it ended. For results that have none stored they are computed, as far
    as this process knows them; those of an evaluation that has just ended are waited for.
    """
    figures = _read_figures(store, evaluation, errors_as)
    if not figures.summary.unknown_metrics or not _has_just_ended(store, evaluation):
        return figures
    deadline = time.monotonic() + _STORED_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if store.summaries.stored([evaluation]):
            return _read_figures(store, evaluation, errors_as)
        time.sleep(_LOOK_SECONDS)
    return figures


def at_one_moment(store: Store, evaluation: Evaluation, errors_as: ErrorsAs = "false") -> tuple[Evaluation, Figures]:
    """Read an evaluation and its results as they are now, so that both are of one moment.

    Rows in flight end after a `doteval cancel` from elsewhere: what was read while they were stored is read again.
    One that had ended, and that another command has begun again since, is read as it ended.
    """
    current = _unless_begun_again(store, evaluation)
    for _ in range(_MOST_READINGS):
        read, figures = current, read_figures(store, current, errors_as)
        current = _unless_begun_again(store, read)
        if (current.status, current.counts) == (read.status, read.counts):
            break
    return read, figures


def _unless_begun_again(store: Store, evaluation: Evaluation) -> Evaluation:
    """An evaluation as it is now, or as given if it had ended and another command has begun it again.

    A second command waits for the end of the first one, and begins the evaluation to see whether it has rows left. How
    the first one ended is what the first one reports.
    """
    current = store.evaluations.by_uid(evaluation.uid)
    return evaluation if current.status == "running" and evaluation.status != "running" else current


def late_rows(shown: Sequence[Evaluation], now: Sequence[Evaluation]) -> list[str]:
    """Sentences about rows that have ended since evaluations were `shown`."""

    called = names(now)
    before = {each.id: each.counts.finished for each in shown}
    more = {each.id: each.counts.finished - before.get(each.id, each.counts.finished) for each in now}
    return [
        f"{called[number]}: {counted(rows, 'row')} in flight ended later, and the figures include them"
        for number, rows in more.items()
        if rows > 0
    ]


def _clustered(store: Store, evaluation: Evaluation, figures: Figures, column: str | None) -> Figures:
    """The figures with intervals that are clustered by a column, if one is given."""
    if column is None:
        return figures
    from doteval.store.clusters import clustered_summary

    return replace(figures, summary=clustered_summary(store, evaluation, figures.summary, column))


def _has_just_ended(store: Store, evaluation: Evaluation) -> bool:
    """Whether a worker process may be about to store the metrics of an evaluation."""
    if evaluation.finished_at is None or evaluation.is_private or not evaluation.config.submitted:
        return False
    now = time.time() + store.clock_offset()
    return now - evaluation.finished_at.timestamp() < _STORED_WITHIN_SECONDS


def _read_figures(store: Store, evaluation: Evaluation, errors_as: ErrorsAs) -> Figures:
    as_false = store.summaries.read(evaluation)
    wanted = as_false if errors_as == "false" else store.summaries.read(evaluation, errors_as)
    if as_false is None or wanted is None:
        from doteval.analysis.summary import summarize_evaluation

        columns = store.results.score_columns(evaluation.id)
        as_false = summarize_evaluation(evaluation, columns)
        wanted = as_false if errors_as == "false" else summarize_evaluation(evaluation, columns, errors_as)
    taken = store.evaluations.work_time(evaluation.id)
    return Figures(wanted, as_false, store.attempts.classes(evaluation.id), taken)


def _indexes(store: Store, evaluations: Sequence[Evaluation], row: str) -> dict[int, int]:
    """The indexes of a row that a user names by its index, or by the beginning of its key, by evaluation.

    Raises NotFoundError: no evaluation has such a row.
    """
    found = {each.id: index for each in evaluations if (index := _row_index(store, each, row)) is not None}
    if not found:
        from doteval.errors import NotFoundError

        if not evaluations:
            raise NotFoundError(f"there is no row {row}: the experiment has no evaluations yet")
        first = evaluations[0]
        rows = store.rows.dataset_state(first.id).rows
        raise NotFoundError(
            f"{first.spec.nodeid} has no row {row}",
            remedy=f"Its rows have the indexes 0 to {rows - 1}; --evaluation chooses one of several evaluations.",
        )
    return found


def _row_index(store: Store, evaluation: Evaluation, row: str) -> int | None:
    if row.isdecimal() and len(row) < _DIGITS_OF_INDEX and store.rows.keys(evaluation.id, int(row), int(row)):
        return int(row)
    if not row:
        return None
    # A short number that is no index would be the beginning of some key by chance.
    by_chance = row.isdecimal() and len(row) < _LEAST_OF_KEY
    return store.selections.index_of_key(evaluation.id, row, whole=by_chance)


def _document(store: Store, evaluation: Evaluation, asked: _Asked, index: int | None) -> dict[str, Any]:
    from doteval.cli import documents
    from doteval.cli.calls import call_document
    from doteval.cli.records import ERRORS_SHOWN, LAST_SHOWN
    from doteval.report.conversations import calls_of_row

    read = _clustered(store, evaluation, read_figures(store, evaluation, asked.errors_as), asked.cluster)
    document = {
        **documents.evaluation(evaluation),
        **documents.work_time(read.time),
        "errors_as": asked.errors_as,
        "error_classes": read.classes,
        "warnings": read.summary.warnings,
        "scores": documents.scores(read.summary, read.as_false),
    }
    if index is not None:
        document["records"] = [record_documents.record(record) for record in store.results.of_row(evaluation.id, index)]
        document["attempts"] = [documents.attempt(each) for each in store.attempts.of_row(evaluation.id, index)]
        document["calls"] = [call_document(each) for each in calls_of_row(store, evaluation, index)]
        return document
    if asked.errors:
        found = store.results.errors(evaluation.id, ERRORS_SHOWN)
        document["errors"] = [documents.error(error) for error in found]
        last = store.attempts.last_failures(evaluation.id, LAST_SHOWN)
        document["last_errors"] = [documents.attempt(each) for each in last]
    if asked.full:
        document["records"] = documents.Streamed(map(record_documents.record, store.results.records(evaluation.id)))
    return document

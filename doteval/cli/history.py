"""`doteval history`: the course of a score over experiments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from doteval.analysis import record_documents
from doteval.analysis.figures import count, figure, interval
from doteval.cli.options import evaluation_option, existing_store, experiment_options, json_option, storage_option
from doteval.core.tables import Table
from doteval.core.times import parse_since

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.history import Change, HistoryStep


@click.command("history")
@click.argument("score", metavar="SCORE[.METRIC]")
@evaluation_option
@experiment_options
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=30,
    show_default=True,
    metavar="N",
    help="The newest N experiments that match.",
)
@storage_option
@json_option
def command(
    score: str,
    evaluation: str | None,
    name: str | None,
    tag: tuple[str, ...],
    since: str | None,
    branch: str | None,
    limit: int,
    storage: str | None,
    as_json: bool,
) -> None:
    """Show how the metrics of SCORE went from experiment to experiment, and where they changed.

    Each value is compared with the newest one before it on the same rows, and with that of the baseline, which is
    always shown. A change is marked if it is more than chance explains. The values are those stored when the
    evaluations ended.

    \b
    doteval history exact_match.accuracy --branch main
    doteval history exact_match --evaluation eval_chat --since 30d
    """
    from doteval.analysis.history import series_of
    from doteval.cli import documents, terminal
    from doteval.core.plugins import did_you_mean
    from doteval.core.wording import counted
    from doteval.errors import NotFoundError
    from doteval.store import ExperimentFilter
    from doteval.store.history import history_points

    wanted = ExperimentFilter(tag, None if since is None else parse_since(since), None, branch, None)
    with existing_store(storage) as store:
        found = [each for each in store.experiments.overviews(name) if wanted.matches(each)][:limit]
        if found and not any(each.labels.is_baseline for each in found):
            found += [each for each in store.experiments.overviews() if each.labels.is_baseline]
        points = list(history_points(store, found, containing=evaluation))
        chosen = [each for each in points if score in (each.score, f"{each.score}.{each.metric.name}")]
        if not chosen:
            known = dict.fromkeys(f"{each.score}.{each.metric.name}" for each in points)
            if not known and evaluation is not None:
                raise NotFoundError(
                    f"no evaluation that has ended contains {evaluation!r}, among {counted(len(found), 'experiment')}",
                    remedy="Look at the evaluations with: doteval show NAME",
                )
            raise NotFoundError(
                f"no evaluation that has ended has the score {score!r}, among {counted(len(found), 'experiment')}",
                remedy=did_you_mean(score, known) if known else "Look at the experiments with: doteval list",
            )
        series = series_of(chosen)
        if as_json:
            documents.write(
                {"storage": store.url, "series": [_document(name, steps) for name, steps in series.items()]}
            )
            return
        console = terminal.console()
        for (evaluation_name, score_name, metric), steps in series.items():
            _print(console, f"{evaluation_name}  {score_name}.{metric}", steps)


def _print(console: Console, title: str, steps: Sequence[HistoryStep]) -> None:
    from rich.text import Text

    from doteval.analysis.history import change_sentence, sparkline
    from doteval.cli import terminal

    console.print(
        Text.assemble((title, "bold"), "  ", sparkline([step.point.metric.value for step in steps])), soft_wrap=True
    )
    with_baseline = any(step.baseline_difference is not None for step in steps)
    with_git = any(step.point.commit for step in steps)
    table = Table(
        *("started", "experiment", *(["commit"] if with_git else [])),
        *("value", "95% interval", "n", "change", *(["to baseline"] if with_baseline else []), "notes"),
        left=2 + with_git,
    )
    for step in steps:
        point, metric = step.point, step.point.metric
        table.add_row(
            f"{point.started_at.astimezone():%Y-%m-%d %H:%M}",
            point.experiment,
            *([point.commit or "-"] if with_git else []),
            figure(metric.value),
            interval(metric.interval),
            count(metric.n),
            _change(step.difference, step.change),
            *([_change(step.baseline_difference, step.baseline_change)] if with_baseline else []),
            ", ".join([*(["(baseline)"] if point.is_baseline else []), *point.tags, *step.notes]),
        )
    terminal.print_table(console, table)
    for step in steps:
        if step.is_seen:
            console.print(change_sentence(step), style="bold red" if (step.difference or 0) < 0 else "bold green")
    console.print()


def _change(difference: float | None, change: Change | None) -> str:
    if difference is None:
        return "-"
    return f"{difference:+.3f}{' !' if change is not None and change.is_seen else ''}"


def _document(name: tuple[str, str, str], steps: Sequence[HistoryStep]) -> dict[str, Any]:

    evaluation, score, metric = name
    return {
        "evaluation": evaluation,
        "score": score,
        "metric": metric,
        "points": [
            {
                "experiment": step.point.experiment,
                "started_at": record_documents.moment(step.point.started_at),
                "status": step.point.status,
                "commit": step.point.commit,
                "branch": step.point.branch,
                "tags": list(step.point.tags),
                "value": step.point.metric.value,
                "interval": None if step.point.metric.interval is None else list(step.point.metric.interval),
                "n": step.point.metric.n,
                "compared_with": step.compared_with,
                "difference": step.difference,
                "difference_interval": _interval(step.change),
                "changed": step.is_seen,
                "notes": list(step.notes),
                "baseline": step.point.is_baseline,
                "baseline_difference": step.baseline_difference,
                "baseline_interval": _interval(step.baseline_change),
            }
            for step in steps
        ],
    }


def _interval(change: Change | None) -> list[float] | None:
    return None if change is None else [change.low, change.high]

"""`doteval recompute`: compute the stored metrics anew."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.options import (
    EXPERIMENT_NAME,
    ReducerParam,
    evaluation_option,
    existing_store,
    json_option,
    storage_option,
)
from doteval.cli.streams import say, say_aside
from doteval.core.reducer_names import REDUCERS
from doteval.core.tables import Table

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.summary import MetricValue
    from doteval.submission.recompute import Recomputed


@click.command("recompute")
@click.argument("name", type=EXPERIMENT_NAME)
@evaluation_option
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="SCORE=METRIC",
    help="Give SCORE this metric in place of its own; repeatable. It is kept until rows run again.",
)
@click.option(
    "--reducer",
    type=ReducerParam(),
    metavar="NAME",
    help=f"From now on, reduce the samples of a row to one score: {REDUCERS}.",
)
@click.option("--dry-run", is_flag=True, help="Show the metrics before and after, and store nothing.")
@storage_option
@json_option
def command(
    name: str,
    evaluation: str | None,
    metrics: tuple[str, ...],
    reducer: str | None,
    dry_run: bool,
    storage: str | None,
    as_json: bool,
) -> None:
    """Compute the metrics of the experiment NAME anew from the stored scores, and store them.

    No row runs and no model is called. Use it after you have changed a metric, or where a metric has no value
    because only the evaluation file knows it: the file is then loaded.

    \b
    doteval recompute nightly --dry-run
    doteval recompute nightly --reducer mode
    doteval recompute nightly --metric exact_match=accuracy --metric exact_match=stderr
    """
    from doteval.submission.recompute import MetricChanges, recompute, store_recomputed

    changes = MetricChanges(reducer, _by_score(metrics))
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        found = recompute(store, evaluations, changes)
        refused = [] if dry_run else store_recomputed(store, found, changes, sys.argv)
        if as_json:
            from doteval.cli import documents

            documents.write(
                {
                    "experiment": documents.experiment(experiment),
                    "storage": store.url,
                    "stored": not dry_run and not refused,
                    "evaluations": [_document(each) for each in found],
                }
            )
        else:
            from doteval.cli import terminal

            console = terminal.console()
            for each in found:
                _print(console, each)
            if not found:
                say(f"{name!r} has no such evaluations")
            if dry_run:
                say("Nothing was stored")
    for evaluation_again in refused:
        say_aside(f"{evaluation_again.spec.nodeid} runs again: its metrics were not stored")
    if refused:
        click.get_current_context().exit(2)


def _by_score(texts: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for text in texts:
        score, sign, metric = text.partition("=")
        if not (score.strip() and sign and metric.strip()):
            raise click.BadParameter(f"{text!r} is not SCORE=METRIC", param_hint="--metric")
        found[score.strip()] = (*found.get(score.strip(), ()), metric.strip())
    return found


def _pairs(found: Recomputed) -> list[tuple[str, str, MetricValue | None, MetricValue | None]]:
    """Each score and metric with its value before and after; None where there is none."""
    before = {} if found.before is None else {(s.name, m.name): m for s in found.before for m in s.metrics}
    after = {(s.name, m.name): m for s in found.after[0] for m in s.metrics}
    return [(*name, before.get(name), after.get(name)) for name in {**before, **after}]


def _print(console: Console, found: Recomputed) -> None:
    from doteval.analysis.figures import figure, interval
    from doteval.cli import terminal
    from doteval.cli.show import print_heading

    print_heading(console, found.evaluation)
    table = Table("score", "metric", "before", "after", "95% interval", "", left=2)
    for score, metric, before, after in _pairs(found):
        table.add_row(
            score,
            metric,
            "-" if before is None else figure(before.value),
            "-" if after is None else figure(after.value),
            interval(None if after is None else after.interval),
            _what(before, after),
        )
    terminal.print_table(console, table)
    for note in found.after[0].notes:
        console.print(note, style="yellow")
    console.print()


def _what(before: MetricValue | None, after: MetricValue | None) -> str:
    if before is None:
        return "new"
    if after is None:
        return "gone"
    return "" if (before.value, before.interval) == (after.value, after.interval) else "changed"


def _document(found: Recomputed) -> dict[str, Any]:
    from doteval.cli import documents

    return {
        **documents.evaluation(found.evaluation),
        "metrics": [
            {
                "score": score,
                "metric": metric,
                "before": None if before is None else before.value,
                "after": None if after is None else after.value,
                "before_interval": None if before is None or before.interval is None else list(before.interval),
                "after_interval": None if after is None or after.interval is None else list(after.interval),
                "change": _what(before, after) or "none",
            }
            for score, metric, before, after in _pairs(found)
        ],
    }

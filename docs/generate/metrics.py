"""The page of metrics, reducers, intervals, tests and evaluators, with their formulas and sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from docs.generate.markdown import documented, page_of, signature
from doteval import evaluators, metrics
from doteval.analysis import paired_tests
from doteval.metrics import agreement, intervals, mean_intervals, reducers, studentized
from doteval.metrics.base import MetricFactory

INTERVALS = (
    mean_intervals.share_interval,
    mean_intervals.mean_interval,
    intervals.wilson,
    studentized.units_interval,
    intervals.resampled_interval,
)
TESTS = (
    paired_tests.true_false_estimate,
    paired_tests.mcnemar,
    paired_tests.mean_estimate,
    paired_tests.metric_estimate,
    paired_tests.holm,
    paired_tests.detectable_difference,
)
AGREEMENT = (agreement.cohens_kappa, agreement.krippendorffs_alpha)


def page() -> str:
    built_in = {name: getattr(metrics, name) for name in metrics.__all__}
    return page_of(
        "Metrics and evaluators",
        "What each computes, by which formula, and from which source. How to read them is in "
        "[Reading results](../reading-results.md), how to write your own in "
        "[Writing evaluations](../writing-evaluations.md).",
        "## Metrics",
        "A metric reduces all values of a score to one number. Import them from `doteval.metrics`.",
        *_entries((name, made) for name, made in built_in.items() if isinstance(made, MetricFactory)),
        "## Reducers",
        "A reducer makes one value of the samples of a row (`--epochs N`, `--reduce NAME`), before a metric sees it.",
        documented("reducer", reducers.reducer),
        *_entries((each.__name__, each) for each in (reducers.pass_at_k, reducers.pass_hat_k)),
        "## Intervals",
        f"All are {intervals.LEVEL:.0%} intervals. A metric that is a mean has `share_interval` or `mean_interval`, "
        "those of classes say theirs above, and any other metric has `resampled_interval`. The functions are doteval's "
        "own, and may change.",
        *_entries((each.__name__, each) for each in INTERVALS),
        "## Comparisons",
        "`doteval compare` matches the rows of two experiments and estimates the difference from the pairs.",
        *_entries((each.__name__, each) for each in TESTS),
        "## Agreement",
        "`doteval judge-check` says how far a judge and people agree beyond chance.",
        *_entries((each.__name__, each) for each in AGREEMENT),
        "## Evaluators",
        "An evaluator judges one row and returns a `Score`. Import them from `doteval.evaluators`. Each also takes "
        "`name=`, the name of the score.",
        *_entries((each.__name__, each) for each in evaluators._BUILT_IN),
    )


def _entries(things: Iterable[tuple[str, Any]]) -> list[str]:
    return [f"### `{name}`\n\n{signature(name, thing)}\n\n{documented(name, thing)}" for name, thing in things]

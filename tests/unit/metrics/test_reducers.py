"""Reducers: the score of a row from those of its samples, and what summaries make of it."""

from __future__ import annotations

import itertools
import math
from statistics import fmean
from typing import Any

import pytest

from doteval.analysis.summary import ScoreColumn, summarize
from doteval.core.experiments import Counts
from doteval.errors import UsageError
from doteval.metrics.reducers import reducer


@pytest.mark.parametrize(
    ("name", "samples", "expected"),
    [
        ("mean", [True, False, False, True], 0.5),
        ("mean", [0.25, 1], 0.625),
        ("median", [3, 1, 10], 3),
        ("median", [True, False], 0.5),
        ("mode", ["b", "a", "a", "b"], "b"),
        ("mode", [True, False, False], False),
        ("mode", [("a", "b"), ("a", "a"), ("a", "a")], ("a", "a")),
        ("max", [0.5, 2, 1], 2),
        ("max", [False, False], 0),
        ("at_least_2", [True, False, True], True),
        ("at_least_3", [True, False, 1.0], False),
        ("pass_at_1", [True, False, False, False], 0.25),
        ("pass_at_5", [False] * 5, 0),
        ("pass_hat_2", [True, True, True, False], 0.5),
    ],
)
def test_the_score_of_a_row(name: str, samples: list[Any], expected: Any) -> None:
    found = reducer(name)(samples)
    assert found == pytest.approx(expected) if isinstance(expected, float) else found == expected


@pytest.mark.parametrize("right", range(6))
@pytest.mark.parametrize("k", range(1, 6))
def test_the_chances_are_those_over_all_choices_of_k_samples(right: int, k: int) -> None:
    samples = [True] * right + [False] * (5 - right)
    choices = list(itertools.combinations(samples, k))
    assert reducer(f"pass_at_{k}")(samples) == pytest.approx(fmean(map(any, choices)))
    assert reducer(f"pass_hat_{k}")(samples) == pytest.approx(fmean(map(all, choices)))


@pytest.mark.parametrize(
    "name", ["", "average", "mean_2", "at_least", "at_least_0", "pass_at_x", "mode(2)", "max" * 99]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError, match="there is no reducer") as raised:
        reducer(name)
    assert "mean, median, mode, max, at_least_K, pass_at_K, pass_hat_K" in str(raised.value.remedy)


def column(values: list[Any], rows: list[int] | None, *, failed: tuple[int, ...] = (), metric: str = "accuracy") -> Any:
    return [ScoreColumn("right", (metric,), values, rows=rows, failed_rows=failed)]


VALUES, ROWS = [True, True, False, True, False, False], [0, 0, 0, 1, 1, 1]


def test_n_is_the_number_of_rows_and_the_note_says_what_a_score_is() -> None:
    summary = summarize(column(VALUES, ROWS), Counts(6, done=6), reducer="mode")
    (metric,) = summary["right"].metrics
    assert (metric.value, metric.n, metric.left_out) == (0.5, 2, 0)
    assert metric.note == "mode of the samples of each row"
    assert metric.interval is not None
    # Wilson's interval of one in two: the samples of a row are no evidence of their own.
    assert (metric.interval.method, round(metric.interval.low, 4)) == ("wilson", 0.0945)


def test_failed_samples_count_as_false() -> None:
    counts = Counts(9, done=6, failed=3)
    columns = column(VALUES, ROWS, failed=(1, 2, 2))
    (metric,) = summarize(columns, counts, reducer="max")["right"].metrics
    assert (metric.value, metric.n, metric.failed) == (pytest.approx(2 / 3), 3, 3)
    assert metric.without_failed == 1.0
    (metric,) = summarize(columns, counts, reducer="max", errors_as="excluded")["right"].metrics
    assert (metric.value, metric.n, metric.left_out) == (1.0, 2, 3)


def test_one_sample_a_row_changes_nothing_but_the_note() -> None:
    plain = summarize(column(VALUES, None), Counts(6, done=6))["right"].metrics[0]
    voted = summarize(column(VALUES, None), Counts(6, done=6), reducer="mode")["right"].metrics[0]
    assert (voted.value, voted.n, voted.interval) == (plain.value, plain.n, plain.interval)


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("pass_at_4", VALUES, "needs 4 samples of each row, but a row has 3: use --epochs 4 or more"),
        ("mean", ["a", "b", "a", "b", "a", "b"], "needs true/false values, numbers or pairs"),
        ("mode", [{}, {}, {}, {}, {}, {}], "unhashable"),
    ],
)
def test_scores_that_cannot_be_reduced_have_no_figure_and_a_reason(name: str, values: list[Any], why: str) -> None:
    (metric,) = summarize(column(values, ROWS), Counts(6, done=6), reducer=name)["right"].metrics
    assert (metric.value, metric.n) == (None, 0)
    assert why in str(metric.note)


def test_metrics_over_samples_get_all_of_them() -> None:
    columns = column(VALUES, ROWS, metric="pass_at_k(k=2)")
    reduced = summarize(columns, Counts(6, done=6), reducer="mode")["right"].metrics[0]
    assert reduced.value == summarize(columns, Counts(6, done=6))["right"].metrics[0].value
    assert not math.isclose(reduced.value or 0.0, 0.5)

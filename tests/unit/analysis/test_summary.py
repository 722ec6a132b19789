"""Summaries: failed rows, intervals, metrics that are missing or fail, and speed."""

from __future__ import annotations

import math
import time

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.summary import ScoreColumn, summarize
from doteval.core.experiments import Counts
from doteval.metrics import Calculation, metric
from doteval.metrics.intervals import wilson
from doteval.metrics.mean_intervals import mean_interval, share_interval


def only(values, counts=None, metrics=("accuracy",), errors_as="false", **more):
    """The only metric of the only score."""
    counts = counts or Counts(len(values), len(values))
    summary = summarize([ScoreColumn("right", metrics, values, **more)], counts, errors_as=errors_as)
    return summary.scores[0].metrics[0]


def test_failed_rows_count_as_false_and_are_counted_apart():
    found = only([True, False, True], Counts(4, 3, failed=1))
    assert found.value == 0.5
    assert found.n == 4
    assert found.without_failed == pytest.approx(2 / 3)
    assert found.interval == wilson(2, 4)


def test_failed_rows_may_be_left_out():
    found = only([True, False, True], Counts(4, 3, failed=1), errors_as="excluded")
    assert found.value == found.without_failed == pytest.approx(2 / 3)
    assert found.n == 3


def test_skipped_and_pending_rows_never_count():
    assert only([True, True], Counts(10, 2, skipped=3)).value == 1.0


@given(st.lists(st.booleans(), min_size=1, max_size=100), st.integers(0, 20))
def test_accuracy_with_failed_rows_is_true_rows_over_all(values, failed):
    found = only(values, Counts(len(values) + failed, len(values), failed))
    assert found.value == pytest.approx(values.count(True) / (len(values) + failed))
    assert found.interval.low <= found.value <= found.interval.high


def test_no_scores_at_all():
    summary = summarize([], Counts(2, 0, failed=2))
    assert summary.scores == ()
    assert summary.to_dict() == {}
    assert summary.counts.failed == 2


def test_a_score_without_values():
    assert only([], Counts(3, 0)).note == "no scores"
    found = only([], Counts(3, 0, failed=3))
    assert (found.value, found.without_failed, found.n) == (0.0, None, 3)


def test_values_are_looked_up_by_score_and_metric():
    summary = summarize([ScoreColumn("right", ("accuracy", "nope"), [True, False])], Counts(2, 2))
    assert summary["right"]["accuracy"] == 0.5
    assert summary["right"]["nope"] is None
    assert [score.name for score in summary] == ["right"]
    assert summary.to_dict() == {"right": {"accuracy": 0.5, "nope": None}}
    with pytest.raises(KeyError):
        summary["wrong"]
    with pytest.raises(KeyError):
        summary["right"]["mean"]


def test_a_note_says_that_a_metric_is_not_installed():
    found = only([True], metrics=("of_another_package",))
    assert found.value is None
    assert found.note == "metric of_another_package is not installed"


def test_a_note_says_that_a_metric_fails_without_row_contents():
    @metric
    def explodes():
        def calculate(scores):
            raise ValueError(f"cannot do {scores[0]}")

        return calculate

    found = only(["the secret row"], metrics=("explodes",))
    assert found.value is None
    assert found.note == "explodes raised ValueError"


def test_labels_have_no_accuracy_and_other_metrics_still_have_values():
    summary = summarize(
        [ScoreColumn("label", ("accuracy",), ["crimson", "blue"]), ScoreColumn("right", ("accuracy",), [True, True])],
        Counts(2, 2),
    )
    assert "needs true/false values" in summary.scores[0].metrics[0].note
    assert "crimson" not in summary.scores[0].metrics[0].note
    assert summary["right"]["accuracy"] == 1.0


def test_numbers_have_a_bootstrap_interval():
    values = [n * n / 10 for n in range(30)]
    assert only(values, metrics=("mean",)).interval == mean_interval(values)


def test_any_metric_is_resampled():
    @metric
    def best():
        return max

    assert only([float(n) for n in range(50)], metrics=("best",)).interval.high == 49.0


def test_ci95_is_a_mean_with_its_interval():
    found = only([True, True, False, True], metrics=("ci95",))
    assert found.value == 0.75
    assert found.interval == wilson(3, 4)


def test_pass_at_k_over_the_samples_of_each_row():
    values, rows = [True, False, False, False], [0, 0, 1, 1]
    assert only(values, metrics=("pass_at_k(k=2)",), rows=rows).value == 0.5
    found = only(values[:3], Counts(4, 3, 1), metrics=("pass_at_k(k=2)",), rows=rows[:3], failed_rows=[1])
    assert found.value == 0.5
    assert "needs 2 samples" in found.note  # without the failed sample, row 1 has one


def test_the_note_of_pass_at_k_without_samples_names_the_option():
    assert "--epochs 5" in only([True, False], metrics=("pass_at_k(k=5)",)).note


def test_samples_of_a_row_are_not_treated_as_independent():
    # Ten samples of each of four rows, which always agree, are four observations and not forty.
    values = [row < 2 for row in range(4) for _ in range(10)]
    rows = [row for row in range(4) for _ in range(10)]
    found = only(values, rows=rows)
    assert found.value == 0.5
    assert found.interval == share_interval([1.0, 1.0, 0.0, 0.0])
    naive = only(values)
    assert found.interval.high - found.interval.low > naive.interval.high - naive.interval.low
    assert only(values, metrics=("std",), rows=rows).interval is None


def test_one_sample_a_row_changes_nothing():
    values = [True, False, True]
    assert only(values, rows=[4, 5, 6]) == only(values)


def test_failed_samples_of_unknown_rows_count_as_rows_of_their_own():
    found = only([True, True], Counts(3, 2, 1), rows=[0, 0])
    assert found.value == pytest.approx(2 / 3)


# What went in, and what was left out


def few(scores):
    return f"with {scores} scores the bootstrap interval is too narrow, take it for a hint"


PAIRS = [("yes", "yes")] * 7 + [("no", "yes"), ("no", "no"), ("yes", "no")]


@pytest.mark.parametrize(
    ("name", "value"), [("recall(positive='yes')", 7 / 8), ("precision(positive='yes')", 7 / 8), ("f1", 0.6875)]
)
def test_class_metrics_leave_failed_rows_out_and_say_so(name, value):
    found = only(PAIRS, Counts(100, 10, failed=90), metrics=(name,))
    assert found.value == found.without_failed == pytest.approx(value)
    assert (found.n, found.failed, found.left_out) == (10, 0, 90)
    notes = ["90 failed rows left out"]
    if name == "f1":
        # Of one class it is a function of a share, and over several it is bootstrapped.
        notes.insert(0, few(10))
    assert found.note == "; ".join(notes)
    assert found.interval == only(PAIRS, metrics=(name,)).interval


@pytest.mark.parametrize(
    ("name", "value", "without"),
    [("accuracy", 0.4, 0.8), ("mean", 0.4, 0.8), ("ci95", 0.4, 0.8), ("std", 0.5164, 0.4472), ("stderr", 0.1633, 0.2)],
)
def test_other_metrics_take_failed_rows_as_false(name, value, without):
    found = only([1.0, 1.0, 1.0, 1.0, 0.0], Counts(10, 5, failed=5), metrics=(name,))
    assert found.value == pytest.approx(value, abs=1e-4)
    assert found.without_failed == pytest.approx(without, abs=1e-4)
    assert (found.n, found.failed, found.left_out) == (10, 5, 0)
    assert found.note == (few(10) if name == "std" else None)


def test_failed_rows_that_the_user_leaves_out_are_counted():
    found = only([True, False], Counts(5, 2, failed=3), errors_as="excluded")
    assert (found.value, found.n, found.failed, found.left_out, found.note) == (0.5, 2, 0, 3, None)


def test_done_rows_without_the_score_are_left_out_and_counted():
    found = only([True, False, True], Counts(10, 6, failed=2, skipped=2))
    assert (found.value, found.n, found.failed, found.left_out) == (0.4, 5, 2, 3)
    assert found.note == "3 rows without this score left out"


@metric
def longest_text():
    return Calculation(lambda texts: max(map(len, texts)), failed_as_false=False)


@metric
def longest_of_texts_only():
    return lambda texts: max(map(len, texts))


@metric
def share_of_true():
    return lambda scores: sum(score is True for score in scores) / len(scores)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        # value, n, failed, left out, without failed, note
        ("longest_text", ["a", "abc"], (3, 2, 0, 1, 3, f"{few(2)}; 1 failed row left out")),
        ("longest_of_texts_only", ["a", "abc"], (None, 3, 1, 0, 3, "longest_of_texts_only raised TypeError")),
        ("share_of_true", [True, True], (2 / 3, 3, 1, 0, 1.0, few(3))),
    ],
)
def test_metrics_of_users_choose_how_failed_rows_count(name, values, expected):
    found = only(values, Counts(3, 2, failed=1), metrics=(name,))
    assert (found.value, found.n, found.failed, found.left_out, found.without_failed, found.note) == expected


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("values", "more", "note"),
    [
        ([0.5, math.nan, 1.0], {"not_finite_rows": [7]}, "1 of 3 scores is NaN (row 7)"),
        (
            [math.nan] * 7 + [0.0],
            {"not_finite_rows": range(7)},
            "7 of 8 scores are NaN (rows 0, 1, 2, 3, 4 and 2 more)",
        ),
        ([math.inf, 2.0, -math.inf], {"not_finite_rows": [0, 4]}, "2 of 3 scores are infinite (rows 0, 4)"),
        ([math.inf, math.nan], {"rows": [5, 5]}, "2 of 2 scores are NaN or infinite (row 5)"),
        ([numpy.float64("nan"), 1.0], {}, "1 of 2 scores is NaN"),
    ],
)
@pytest.mark.parametrize("name", ["mean", "accuracy", "std", "ci95"])
def test_scores_that_are_not_finite_give_a_note_instead_of_a_value(name, values, more, note):
    found = only(values, metrics=(name,), **more)
    assert (found.value, found.interval, found.without_failed) == (None, None, None)
    assert found.note == note
    assert found.n == len(values)


def test_a_metric_that_bears_nan_keeps_its_value_beside_the_note():
    @metric
    def mean_of_finite():
        return lambda scores: sum(filter(math.isfinite, scores)) / 2

    found = only([1.0, math.nan, 2.0], metrics=("mean_of_finite",), not_finite_rows=[1])
    assert found.value == 1.5
    assert found.note == f"1 of 3 scores is NaN (row 1); {few(3)}"


def test_pairs_with_nan_are_named():
    found = only([(math.nan, math.nan), ("a", "a")], metrics=("accuracy",), not_finite_rows=[3])
    assert (found.value, found.note) == (0.5, "1 of 2 scores is NaN (row 3)")


@pytest.mark.parametrize(("values", "name", "what"), [([0.5], "std", "NaN"), ([1.0, 2.0], "unbounded", "infinite")])
def test_a_value_that_is_not_finite_has_a_note(values, name, what):
    @metric
    def unbounded():
        return lambda scores: math.inf

    found = only(values, metrics=(name,))
    assert (found.value, found.note) == (None, f"the value is {what}")


def test_notes_name_all_metrics_that_they_are_about():
    columns = [
        ScoreColumn("number", ("mean", "std"), [math.nan, 1.0]),
        ScoreColumn("pair", ("f1", "accuracy"), [("a", "a"), ("b", "b")]),
    ]
    summary = summarize(columns, Counts(3, 2, failed=1))
    assert summary.notes == ["number mean, std: 1 of 2 scores is NaN", f"pair f1: {few(2)}; 1 failed row left out"]


@pytest.mark.parametrize(
    ("counts", "warned"),
    [
        (Counts(100, 95, failed=5), []),
        (Counts(100, 94, failed=6), ["6 of 100 rows failed (6.0%): the figures count them as False"]),
        (Counts(2000, 9, failed=1, skipped=500), ["1 of 10 rows failed (10.0%): the figures count them as False"]),
        (Counts(1, 0, failed=1), ["1 of 1 row failed (100.0%): the figures count them as False"]),
        (Counts(0), []),
    ],
)
def test_more_than_a_twentieth_of_failed_rows_is_a_warning(counts, warned):
    assert summarize([], counts).warnings == warned


def test_the_warning_says_that_failed_rows_are_left_out():
    (warning,) = summarize([], Counts(4, 3, failed=1), errors_as="excluded").warnings
    assert warning.endswith("the figures leave them out")


def test_numpy_scalars():
    found = only([numpy.bool_(True), numpy.bool_(False)])
    assert found.value == 0.5
    assert found.interval == wilson(1, 2)


def test_a_million_rows_take_well_under_a_second():
    wilson(1, 2)  # the import of scipy is not what is measured
    values = [bool(n % 3) for n in range(1_000_000)]
    began = time.process_time()
    summary = summarize([ScoreColumn("right", ("accuracy", "stderr", "ci95"), values)], Counts(None, 1_000_000, 10))
    assert time.process_time() - began < 1.0
    assert summary["right"]["accuracy"] == pytest.approx(666_666 / 1_000_010)

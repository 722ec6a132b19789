"""Summaries: failed rows, intervals, metrics that are missing or fail, and speed."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.summary import ScoreColumn, summarize
from doteval.core.experiments import Counts
from doteval.metrics import metric
from doteval.metrics.intervals import mean_interval, wilson


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
    assert found.interval == mean_interval([1.0, 1.0, 0.0, 0.0])
    naive = only(values)
    assert found.interval.high - found.interval.low > naive.interval.high - naive.interval.low
    assert only(values, metrics=("std",), rows=rows).interval is None


def test_one_sample_a_row_changes_nothing():
    values = [True, False, True]
    assert only(values, rows=[4, 5, 6]) == only(values)


def test_failed_samples_of_unknown_rows_count_as_rows_of_their_own():
    found = only([True, True], Counts(3, 2, 1), rows=[0, 0])
    assert found.value == pytest.approx(2 / 3)


def test_numpy_scalars():
    numpy = pytest.importorskip("numpy")
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

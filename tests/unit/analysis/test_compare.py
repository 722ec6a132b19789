"""Comparisons: which rows are paired, what the verdict is, and what rows without results may change."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.compare import (
    MetricComparison,
    MissingEvaluation,
    Verdict,
    compare_evaluations,
    conclude,
    overall,
    power_sentence,
    regressions,
)
from doteval.analysis.score_arrays import EvaluationArrays
from tests.support.comparisons import FAILED, PENDING, SKIPPED
from tests.support.score_arrays import arrays, comparison_of

BETTER, WORSE, SAME, UNDECIDED = Verdict.BETTER, Verdict.WORSE, Verdict.NO_DIFFERENCE, Verdict.UNDECIDED
GOOD = (BETTER, SAME)


def two(before: Sequence[Any], after: Sequence[Any], **settings: Any) -> MetricComparison:
    """The comparison of the only score."""
    (metric,) = comparison_of(before, after, **settings).evaluations[0].metrics
    return metric


def flipped(n: int, improved: int, worsened: int) -> tuple[list[bool], list[bool]]:
    """Scores of `n` rows, of which some improve and then some become worse."""
    before = [False] * improved + [True] * worsened + [row % 2 == 0 for row in range(n - improved - worsened)]
    after = [True] * improved + [False] * worsened + before[improved + worsened :]
    return before, after


# Figures


def test_true_and_false() -> None:
    found = two([True, False, False, True], [True, True, True, False], changed_rows=5)
    assert (found.score, found.metric, found.n) == ("right", "accuracy", 4)
    assert (found.baseline, found.value, found.difference) == (0.5, 0.75, 0.25)
    assert (found.improved, found.worsened) == (2, 1)
    # First those that became worse.
    assert [(row.index, row.baseline, row.value) for row in found.changed] == [(3, 1, 0), (1, 0, 1), (2, 0, 1)]


def test_pairs_are_right_or_wrong() -> None:
    found = two([("a", "a"), ("a", "b"), ("b", "b")], [("a", "a"), ("b", "b"), ["a", "b"]])
    assert (found.baseline, found.value, found.test) == (pytest.approx(2 / 3), pytest.approx(2 / 3), "mcnemar-exact")


def test_numbers_are_compared_by_their_paired_differences() -> None:
    before = [float(n) for n in range(30)]
    after = [n + 1 + n % 3 for n in before]
    found = two(before, after, metrics={"right": ("mean",)})
    assert found.difference == pytest.approx(2.0)
    assert found.interval is not None
    # Since the rows are paired, their own spread of 0 to 29 does not widen the interval.
    assert found.interval.high - found.interval.low < 1.0
    assert found.verdict is BETTER


def test_means_of_one_score_are_one_comparison() -> None:
    before, after = flipped(40, 9, 2)
    names = [
        metric.metric
        for metric in comparison_of(before, after, metrics={"right": ("mean", "accuracy", "ci95", "std", "stderr")})
        .evaluations[0]
        .metrics
    ]
    # A spread is neither good nor bad.
    assert names == ["accuracy"]


def test_numbers_without_metrics_are_compared_by_their_mean() -> None:
    assert two([1.0, 2.0, 3.0], [1.5, 2.0, 3.0], metrics={"right": ()}).metric == "mean"


def test_other_metrics_have_a_comparison_each() -> None:
    source = random.Random(3)
    expected = [source.choice("abc") for _ in range(80)]
    before = [(each if source.random() < 0.5 else source.choice("abc"), each) for each in expected]
    after = [(each if source.random() < 0.9 else source.choice("abc"), each) for each in expected]
    found = comparison_of(before, after, metrics={"right": ("accuracy", "f1")}).evaluations[0].metrics
    assert [(each.metric, each.verdict) for each in found] == [("accuracy", BETTER), ("f1", BETTER)]
    # A row has no F1 of its own, so that none became better or worse in it.
    assert found[0].improved
    assert (found[1].improved, found[1].worsened) == (None, None)


def test_a_metric_over_samples() -> None:
    before = [sample == 0 for _ in range(12) for sample in range(3)]
    after = [True for _ in range(12) for _ in range(3)]
    found = two(before, after, samples=3, metrics={"right": ("pass_at_k(k=1)",)})
    assert (found.n, found.baseline, found.value) == (12, pytest.approx(1 / 3), 1.0)
    assert found.verdict is BETTER


def test_a_metric_that_is_not_loaded() -> None:
    found = two([True] * 9, [True] * 9, metrics={"right": ("nosuchmetric",)})
    assert found.verdict is UNDECIDED
    (reason,) = found.reasons
    assert reason.startswith(
        "metric nosuchmetric is not installed, and the means of the values (1.000 | 1.000) say nothing"
    )


def test_labels_have_no_difference() -> None:
    assert comparison_of(["a", "b"] * 5, ["a", "c"] * 5, metrics={"right": ()}).evaluations[0].metrics == ()
    found = two(["a", "b"] * 5, ["a", "c"] * 5)
    assert (found.verdict, found.reasons) == (UNDECIDED, ("no row has a value on both sides",))


def test_lower_may_be_better() -> None:
    before, after = [float(n % 5) for n in range(40)], [n % 5 - 0.5 for n in range(40)]
    found = two(before, after, metrics={"right": ("mean",)}, lower_is_better=["right"])
    assert (found.difference, found.verdict, found.better) == (pytest.approx(-0.5), BETTER, "lower")
    assert (found.improved, found.worsened) == (40, 0)
    assert two(after, before, metrics={"right": ("mean",)}, lower_is_better=["right"]).verdict is WORSE


def test_samples_of_a_row_are_reduced_first() -> None:
    shares = [0.25, 0.5, 0.0, 1.0, 0.5, 0.25, 0.75], [0.5, 0.5, 0.25, 1.0, 1.0, 0.0, 1.0]
    before, after = ([sample < round(share * 4) for share in side for sample in range(4)] for side in shares)
    found = two(before, after, samples=4)
    rows = two(*shares)
    assert (found.n, found.difference) == (7, pytest.approx(1 / 7))
    # As many rows as samples would be four times as certain.
    assert (found.interval, found.p_value) == (rows.interval, rows.p_value)


@pytest.mark.parametrize(
    ("reducer", "expected", "exact"),
    [
        ("mean", (2 / 3, 1 / 3), False),
        (None, (2 / 3, 1 / 3), False),
        ("mode", (1.0, 0.0), True),
        ("max", (1.0, 1.0), True),
        ("at_least_2", (1.0, 0.0), True),
        ("median", (1.0, 0.0), False),
        ("pass_at_2", (1.0, 2 / 3), False),
    ],
)
def test_samples_are_reduced_as_the_experiment_says(
    reducer: str | None, expected: tuple[float, float], exact: bool
) -> None:
    before, after = [True, False, True] * 8, [False, False, True] * 8
    found = two(before, after, samples=3, reducer=reducer)
    assert (found.n, found.baseline, found.value) == (8, *map(pytest.approx, expected))
    assert (found.test == "mcnemar-exact") is exact


def test_missing_samples_are_filled_before_they_are_reduced() -> None:
    # At least two of three samples: a row with two right ones is right whatever the third gives.
    before, after = [False] * 30, [True, True, PENDING] * 10
    assert two(before, after, samples=3, reducer="at_least_2").verdict is BETTER
    found = two(before, after, samples=3, reducer="pass_hat_3")
    assert found.verdict is UNDECIDED
    assert found.reasons[0].startswith("the samples of a row cannot be reduced: pass_hat_3 needs 3 samples of each row")
    # The most frequent of numbers may be any other number with one more sample.
    shares = two([0.1] * 30, [0.5, 0.5, PENDING] * 10, samples=3, reducer="mode")
    assert (shares.verdict, shares.worst_difference) == (UNDECIDED, None)


def test_other_metrics_get_reduced_samples() -> None:
    right, wrong = ("a", "a"), ("b", "a")
    before, after = [right, wrong, wrong] * 12 + [("b", "b")] * 9, [right, right, wrong] * 12 + [("b", "b")] * 9
    found = two(before, after, samples=3, reducer="mode", metrics={"right": ("recall(positive='a')",)})
    assert (found.n, found.baseline, found.value) == (15, 0.0, 1.0)


def test_the_number_of_samples_may_differ() -> None:
    found = two([True, True, False, True] * 2, [True, False, True, False], base={"samples": 2}, new={"samples": 1})
    assert (found.n, found.baseline, found.value) == (4, 0.75, 0.5)


def test_clusters_are_less_certain_than_rows() -> None:
    # Each of ten topics is wholly better or worse.
    before = [False, True] * 50
    after = [(topic % 3 != 0) for topic in range(10) for _ in range(10)]
    topics = [f"topic {topic}" for topic in range(10) for _ in range(10)]
    rows, clusters = two(before, after), two(before, after, clusters=topics)
    assert (rows.difference, rows.units, clusters.units) == (clusters.difference, 100, 10)
    assert rows.interval is not None
    assert clusters.interval is not None
    assert clusters.interval.low < rows.interval.low
    assert clusters.p_value > rows.p_value


def test_what_else_differs_is_named() -> None:
    def said(before: EvaluationArrays, after: EvaluationArrays) -> tuple[str, ...]:
        return conclude([compare_evaluations(before, after)]).evaluations[0].differences

    values = {"right": [True] * 10}
    base = arrays("base", values, keys=list("abcdefghij"))
    assert said(base, arrays("new", values, keys=list("abcdefghij"))) == ()
    assert said(base, arrays("new", values, keys=list("jihgfedcba"))) == (
        "the dataset has the same rows in another order",
    )
    assert said(base, arrays("new", values, keys=list("abcdefgxyz"))) == (
        "the dataset differs: 3 rows are only in base, 3 rows are only in new",
    )
    fewer = arrays("new", {"right": [True] * 9}, keys=list("abcdefghi"))
    assert said(base, fewer) == ("the dataset differs: 1 row is only in base",)
    more = {"right": ("accuracy", "mean")}
    assert said(base, arrays("new", values, metrics=more, keys=list("abcdefghij"))) == (
        "the metrics of right differ: accuracy | accuracy, mean",
    )
    twice = arrays("new", {"right": [True] * 20}, samples=2, keys=list("abcdefghij"))
    assert said(base, twice) == ("the numbers of samples of a row differ: 1 | 2",)


def test_p_values_are_adjusted_for_all_that_is_compared() -> None:
    before, after = flipped(60, 9, 1)
    alone = two(before, after)
    assert (alone.verdict, alone.adjusted_p_value) == (BETTER, alone.p_value)
    scores = {f"score{n}": before for n in range(4)}
    compared = compare_evaluations(
        arrays("base", scores), arrays("new", {name: after if name == "score0" else before for name in scores})
    )
    found = conclude([compared]).evaluations[0].metrics[0]
    assert found.p_value == alone.p_value
    assert found.adjusted_p_value == pytest.approx(4 * alone.p_value)
    assert found.verdict is SAME


def test_the_power_sentence() -> None:
    # 1,319 rows, of which 7% changed.
    found = two(*flipped(1319, 46, 46))
    assert power_sentence(found) == "with 1,319 rows a drop of 2.1 points would be seen with 80% power"
    assert "too few to see even the greatest drop" in str(power_sentence(two(*flipped(6, 3, 2))))
    numbers = two([1.0, 2.0, 5.0] * 10, [1.5, 2.0, 4.0] * 10, metrics={"right": ("mean",)}, lower_is_better=["right"])
    assert "a rise of 0.3" in str(power_sentence(numbers))
    assert power_sentence(two([2.0] * 9, [2.0] * 9, metrics={"right": ("mean",)})) is None


# Verdicts


def test_verdicts() -> None:
    assert two(*flipped(100, 12, 2)).verdict is BETTER
    assert two(*flipped(100, 2, 12)).verdict is WORSE
    assert two(*flipped(100, 6, 5)).verdict is SAME
    assert two([True] * 5, [False] * 5).verdict is UNDECIDED
    assert two([True] * 6, [False] * 6).verdict is WORSE


def test_a_drop_that_is_allowed_must_be_excluded() -> None:
    same = flipped(100, 6, 5)
    assert two(*same, max_drop=0.2).verdict is SAME
    found = two(*same, max_drop=0.01)
    assert (found.verdict, found.reasons) == (UNDECIDED, ("a drop of 0.059 cannot be excluded, and 0.01 is allowed",))
    worse = flipped(2000, 2, 20)
    assert (two(*worse).verdict, two(*worse).tolerated) == (WORSE, False)
    assert (two(*worse, max_drop=0.05).verdict, two(*worse, max_drop=0.05).tolerated) == (WORSE, True)
    assert not two(*worse, max_drop=0.01).tolerated


def test_the_worst_verdict_is_that_of_all() -> None:
    assert overall([BETTER, SAME]) is BETTER
    assert overall([SAME, UNDECIDED, BETTER]) is UNDECIDED
    assert overall([UNDECIDED, WORSE]) is WORSE
    assert overall([]) is UNDECIDED


def test_an_evaluation_that_is_missing_is_not_passed() -> None:
    before, after = flipped(100, 12, 2)
    tested = compare_evaluations(arrays("base", {"right": before}), arrays("new", {"right": after}))
    found = conclude([tested], [MissingEvaluation("new", "eval_more")])
    assert found.verdict is UNDECIDED
    assert regressions(found) == ["new has no evaluation eval_more"]


def test_a_score_that_is_missing_is_undecided() -> None:
    before, _ = flipped(50, 0, 0)
    tested = compare_evaluations(
        arrays("base", {"right": before, "extra": before}), arrays("new", {"right": before, "more": before})
    )
    found = conclude([tested])
    assert [(each.score, each.verdict) for each in found.evaluations[0].metrics] == [
        ("right", SAME),
        ("extra", UNDECIDED),
    ]
    assert found.evaluations[0].metrics[1].reasons == ("new has no score extra",)
    assert found.evaluations[0].only_other == ("more",)


def test_regressions() -> None:
    worse, same = flipped(100, 2, 12), flipped(100, 6, 5)
    assert regressions(comparison_of(*same), strict=True) == []
    (failure,) = regressions(comparison_of(*worse))
    assert failure.startswith("eval_qa right.accuracy is WORSE (0.550 in the baseline, now 0.450, 95% interval")
    assert regressions(comparison_of(*flipped(2000, 2, 20), max_drop=0.05)) == []
    undecided = comparison_of(*same, max_drop=0.01)
    assert regressions(undecided) == []
    assert "UNDECIDED" in regressions(undecided, strict=True)[0]
    unfinished = comparison_of(*flipped(100, 12, 2), new={"unfinished": "new::eval_qa is running"})
    assert regressions(unfinished) == ["new::eval_qa is running"]


# Rows without results


@pytest.mark.parametrize("hole", [FAILED, SKIPPED, PENDING, None, math.nan])
def test_holes_that_may_change_a_good_verdict_make_it_undecided(hole: object) -> None:
    before, after = flipped(100, 9, 1)
    assert two(before, after).verdict is BETTER
    # Two rows that are wrong now have no result in the baseline.
    assert (after[11], after[13]) == (False, False)
    before[11] = before[13] = hole
    found = two(before, after)
    assert found.verdict is UNDECIDED
    assert found.missing == 2
    assert found.reasons == ("2 results are missing or failed, which could change the verdict",)
    assert found.worst_difference == pytest.approx(0.06)
    # Where the others are enough by themselves, they do not matter.
    before, after = flipped(100, 30, 1)
    before[32] = before[34] = hole
    assert two(before, after).verdict is BETTER


def test_failed_rows_count_as_false() -> None:
    before, after = flipped(100, 0, 0)
    found = two(before, [FAILED] * 20 + after[20:])
    assert (found.verdict, found.n, found.worsened) == (WORSE, 100, 10)
    # In the baseline, they make no other experiment better.
    found = two([FAILED] * 20 + before[20:], after)
    assert (found.verdict, found.improved) == (UNDECIDED, 10)


def test_skipped_and_pending_rows_are_left_out() -> None:
    before, after = flipped(100, 0, 20)
    found = two(before, [SKIPPED, PENDING, *after[2:]])
    assert (found.verdict, found.n, found.missing) == (WORSE, 98, 2)


def test_rows_without_a_counterpart_may_change_the_verdict() -> None:
    before, after = flipped(60, 8, 1)
    assert two(before, after).verdict is BETTER
    # The experiment has not run ten rows that were right in the baseline.
    found = two(before + [True] * 10, after, base={"keys": [str(n) for n in range(70)]})
    assert found.verdict is UNDECIDED
    # Rows that were wrong in the baseline cannot have become worse.
    found = two(before + [False] * 10, after, base={"keys": [str(n) for n in range(70)]})
    assert found.verdict is BETTER


def test_numbers_without_bounds_need_all_rows() -> None:
    before = [float(n % 7) for n in range(50)]
    after = [value + 1.0 for value in before]
    metrics = {"right": ("mean",)}
    assert two(before, after, metrics=metrics).verdict is BETTER
    found = two(before, [FAILED, *after[1:]], metrics=metrics)
    assert (found.verdict, found.worst_difference) == (UNDECIDED, None)
    assert found.reasons == ("1 result is missing or failed, and nothing bounds the values that they might have",)
    assert two(after, [FAILED, *before[1:]], metrics=metrics).verdict is WORSE


def test_accuracy_of_shares_is_bounded() -> None:
    before = [n % 5 / 10 for n in range(50)]
    after = [value + 0.4 for value in before]
    found = two([FAILED, *before[1:]], after)
    assert (found.verdict, found.worst_difference) == (BETTER, pytest.approx((49 * 0.4 + 0.4 - 1.0) / 50))


def test_an_evaluation_that_has_not_ended_has_no_good_verdict() -> None:
    note = {"unfinished": "new::eval_qa is running"}
    for pairs, verdict in ((flipped(100, 12, 2), UNDECIDED), (flipped(100, 2, 12), WORSE)):
        assert two(*pairs, new=note).verdict is verdict
        assert two(*pairs, base=note).verdict is verdict


CELLS = st.sampled_from([True, True, False, False, FAILED, SKIPPED, PENDING])


@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=6, max_size=24),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=0, max_size=30),
    st.randoms(use_true_random=False),
    st.sampled_from([None, 0.05, 0.3]),
)
def test_no_values_of_missing_rows_are_worse_than_a_good_verdict(
    cells: list[tuple[Any, Any]], complete: list[tuple[bool, bool]], source: random.Random, max_drop: float | None
) -> None:
    """Whatever the rows without a result would have given, the verdict is as good."""
    before, after = (list(side) for side in zip(*cells, *complete, strict=True))
    verdict = two(before, after, max_drop=max_drop).verdict
    if verdict not in GOOD:
        return
    holes = [
        (side, place) for side in (before, after) for place, value in enumerate(side) if not isinstance(value, bool)
    ]
    fills = (
        itertools.product((True, False), repeat=len(holes))
        if len(holes) <= 4
        else ([source.random() < 0.5 for _ in holes] for _ in range(12))
    )
    for fill in fills:
        for (side, place), value in zip(holes, fill, strict=True):
            side[place] = value
        completed = two(before, after, max_drop=max_drop).verdict
        assert completed is verdict or (verdict is SAME and completed is BETTER)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_sides_reverses_the_signs(pairs: list[tuple[bool, bool]]) -> None:
    before, after = zip(*pairs, strict=True)
    forth, back = two(before, after), two(after, before)
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.improved, forth.worsened) == (back.worsened, back.improved)
    assert forth.interval is not None
    assert back.interval is not None
    assert list(forth.interval) == pytest.approx([-back.interval.high, -back.interval.low])
    assert forth.p_value == pytest.approx(back.p_value)


def test_a_million_rows_take_little_memory() -> None:
    import tracemalloc

    n = 200_000
    tracemalloc.start()
    sides = [
        arrays(name, {"right": numpy.random.default_rng(seed).random(n).tolist()})
        for name, seed in (("base", 1), ("new", 2))
    ]
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    found = conclude([compare_evaluations(sides[0], sides[1])])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.evaluations[0].matched == n
    # Bytes for each row and comparison, beside what the arrays take themselves.
    assert (peak - before) / n < 200

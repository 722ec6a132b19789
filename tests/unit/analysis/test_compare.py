"""Comparisons: which results are matched, how much they differ with which interval, and which rows changed."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.compare import ExperimentRecords, compare, mcnemar
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score
from doteval.metrics.intervals import mean_interval

FAILED = RowError("ValueError", "no", ErrorClass.EVALUATION)


def record(index, value=None, *, key=None, sample=0, status=RowStatus.DONE, **scores):
    if value is not None:
        scores["right"] = value
    outcome = Outcome(
        status,
        0.0,
        1.0,
        scores=tuple(Score(name, entry, ("accuracy",)) for name, entry in scores.items()),
        error=FAILED if status is RowStatus.FAILED else None,
    )
    return Record(Row(index, key or f"key{index}", {}, sample), outcome)


def records(name, values, evaluation="eval_a"):
    return ExperimentRecords(name, {evaluation: [record(index, value) for index, value in enumerate(values)]})


def two(before, after, **settings):
    """The comparison of the only score of the only evaluation."""
    comparison = compare(records("base", before), records("new", after), **settings)
    return comparison.evaluations[0].scores[0]


def test_true_and_false():
    found = two([True, False, False, True], [True, True, True, False])
    assert (found.score, found.n) == ("right", 4)
    assert (found.before, found.after, found.difference) == (0.5, 0.75, 0.25)
    assert (found.changed, found.improved, found.worsened) == (3, 2, 1)
    assert [(row.index, row.before, row.after) for row in found.rows] == [
        (1, False, True),
        (2, False, True),
        (3, True, False),
    ]
    assert found.interval.low < 0.25 < found.interval.high


def test_mcnemar_is_the_exact_binomial_tail():
    # By hand: 2 · (C(9,0) + C(9,1)) / 2^9 for 8 against 1.
    assert mcnemar(8, 1) == pytest.approx(2 * (1 + 9) / 2**9)
    assert mcnemar(1, 8) == mcnemar(8, 1)
    assert mcnemar(0, 0) == 1.0


def test_the_interval_is_bonett_and_prices():
    # By hand: n 20, 6 improved, 1 worsened; shares (6+1)/22 and (1+1)/22.
    found = two([False] * 6 + [True] * 14, [True] * 6 + [False] + [True] * 13)
    centre = 5 / 22
    margin = 1.959963984540054 * math.sqrt((9 / 22 - centre**2) / 22)
    assert list(found.interval) == pytest.approx([centre - margin, centre + margin])
    assert found.p_value == pytest.approx(2 * (1 + 7) / 2**7)


def test_the_interval_contains_the_true_difference_in_about_95_percent():
    source = random.Random(5)
    covered = 0
    for _ in range(300):
        # The share of rows that are right rises by 0.2.
        rows = [source.random() for _ in range(40)]
        found = two([row < 0.4 for row in rows], [0.1 < row < 0.7 for row in rows], rows=0)
        covered += found.interval.low <= 0.2 <= found.interval.high
    # 95% of 300, less four standard deviations.
    assert covered >= 270


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_swapping_the_experiments_reverses_the_signs(pairs):
    before, after = zip(*pairs, strict=True)
    forth, back = two(before, after), two(after, before)
    assert forth.difference == -back.difference
    assert (forth.improved, forth.worsened, forth.changed) == (back.worsened, back.improved, back.changed)
    assert list(forth.interval) == pytest.approx([-back.interval.high, -back.interval.low])
    assert forth.p_value == pytest.approx(back.p_value)
    assert forth.improved + forth.worsened == forth.changed == len(forth.rows)


def test_nothing_changed():
    found = two([True] * 5, [True] * 5)
    assert (found.difference, found.changed, found.p_value, found.rows) == (0.0, 0, 1.0, ())
    # Five equal rows are no proof that there is no difference.
    assert found.interval.low < -0.1 < 0.1 < found.interval.high


def test_numbers_are_compared_by_their_paired_differences():
    before = [float(n) for n in range(30)]
    after = [n + 1 + n % 3 for n in before]
    found = two(before, after)
    assert found.difference == pytest.approx(2.0)
    assert found.interval == mean_interval([right - left for left, right in zip(before, after, strict=True)])
    # Since the rows are paired, their own spread of 0 to 29 does not widen the interval.
    assert found.interval.high - found.interval.low < 1.0
    assert found.p_value is None


def test_labels_have_changed_rows_and_no_difference():
    found = two(["a", "b", "c"], ["a", "c", "c"])
    assert (found.before, found.after, found.difference, found.interval, found.p_value) == (None,) * 5
    assert (found.n, found.changed) == (3, 1)
    assert (found.rows[0].before, found.rows[0].after) == ("b", "c")


def test_rows_are_matched_by_key_and_not_by_position():
    before = ExperimentRecords("base", {"e": [record(0, True, key="x"), record(1, False, key="y")]})
    after = ExperimentRecords("new", {"e": [record(0, False, key="y"), record(1, True, key="x"), record(2, True)]})
    found = compare(before, after).evaluations[0]
    assert (found.matched, found.only_before, found.only_after) == (2, 0, 1)
    assert found.scores[0].changed == 0


def test_equal_rows_of_a_dataset_are_matched_in_their_order():
    before = ExperimentRecords("base", {"e": [record(n, n == 0, key="same") for n in range(3)]})
    after = ExperimentRecords("new", {"e": [record(n, n == 1, key="same") for n in range(2)]})
    found = compare(before, after).evaluations[0]
    assert (found.matched, found.only_before) == (2, 1)
    assert [(row.index, row.before, row.after) for row in found.scores[0].rows] == [(0, True, False), (1, False, True)]


def test_failed_rows_count_as_false_or_are_left_out():
    before = ExperimentRecords("base", {"e": [record(0, True), record(1, True), record(2, False)]})
    after = ExperimentRecords(
        "new", {"e": [record(0, True), record(1, status=RowStatus.FAILED), record(2, status=RowStatus.FAILED)]}
    )
    found = compare(before, after).evaluations[0].scores[0]
    assert (found.n, found.after, found.worsened) == (3, pytest.approx(1 / 3), 1)
    # Row 2 was wrong and now fails: its value is False both times, but it has changed.
    assert [(row.index, row.after, row.failed) for row in found.rows] == [
        (1, False, (False, True)),
        (2, False, (False, True)),
    ]
    found = compare(before, after, errors_as="excluded").evaluations[0]
    assert (found.matched, found.only_before, found.scores[0].n, found.scores[0].difference) == (1, 2, 1, 0.0)


def test_skipped_rows_are_left_out():
    before = ExperimentRecords(
        "base", {"e": [record(0, True), record(1, True, key="same"), record(2, True, key="same")]}
    )
    after = ExperimentRecords(
        "new", {"e": [record(0, True), record(1, key="same", status=RowStatus.SKIPPED), record(2, True, key="same")]}
    )
    found = compare(before, after).evaluations[0]
    assert (found.matched, found.only_before, found.scores[0].changed) == (2, 1, 0)


def test_a_score_that_only_some_rows_have():
    before = ExperimentRecords("base", {"e": [record(0, right=True, extra=1.0), record(1, right=True)]})
    after = ExperimentRecords("new", {"e": [record(0, right=False), record(1, right=True, other=2.0)]})
    scores = {score.score: score for score in compare(before, after).evaluations[0].scores}
    assert set(scores) == {"right", "extra", "other"}
    assert scores["right"].n == 2
    assert (scores["extra"].n, scores["extra"].difference) == (0, None)


def test_samples_of_a_row_are_averaged_first():
    def experiment(name, shares):
        rows = [
            record(index, sample < round(share * 4), sample=sample)
            for index, share in enumerate(shares)
            for sample in range(4)
        ]
        return ExperimentRecords(name, {"e": rows})

    before, after = [0.25, 0.5, 0.0, 1.0, 0.5, 0.25], [0.5, 0.5, 0.25, 1.0, 1.0, 0.0]
    found = compare(experiment("base", before), experiment("new", after)).evaluations[0].scores[0]
    assert found.n == 24
    assert found.difference == pytest.approx(0.75 / 6)
    assert found.interval == mean_interval([right - left for left, right in zip(before, after, strict=True)])
    assert found.p_value is None


def test_several_experiments_and_missing_evaluations():
    base = ExperimentRecords("base", {"a": [record(0, True)], "b": [record(0, True)]})
    first = ExperimentRecords("first", {"a": [record(0, False)]})
    second = ExperimentRecords("second", {"a": [record(0, True)], "c": [record(0, True)]})
    found = compare(base, first, second)
    assert (found.baseline, found.experiments) == ("base", ("first", "second"))
    assert [(one.evaluation, one.experiment, one.scores[0].difference) for one in found.evaluations] == [
        ("a", "first", -1.0),
        ("a", "second", 0.0),
    ]
    assert set(found.missing) == {("first", "b"), ("second", "b"), ("base", "c")}


def test_records_may_be_streamed():
    base = ExperimentRecords("base", {"e": (record(n, True) for n in range(3))})
    new = ExperimentRecords("new", {"e": (record(n, n > 0) for n in range(3))})
    again = ExperimentRecords("again", {"e": (record(n, n > 1) for n in range(3))})
    found = compare(base, new, again)
    assert [one.scores[0].worsened for one in found.evaluations] == [1, 2]


def test_changed_rows_are_counted_beyond_the_limit():
    found = two([False] * 50, [True] * 50, rows=3)
    assert found.changed == 50
    assert [row.index for row in found.rows] == [0, 1, 2]


def test_experiments_without_common_rows():
    base = ExperimentRecords("base", {"e": [record(0, True)]})
    new = ExperimentRecords("new", {"e": [record(1, True)]})
    found = compare(base, new).evaluations[0]
    assert (found.matched, found.scores[0].n, found.scores[0].difference) == (0, 0, None)

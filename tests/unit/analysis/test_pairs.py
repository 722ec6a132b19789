"""Rows of two evaluations are paired by their keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.compare import Verdict
from doteval.analysis.score_arrays import digests, pair_rows
from tests.support.score_arrays import comparison_of


def test_rows_are_paired_by_key_and_not_by_position() -> None:
    before = {"keys": ["x", "y", "z"]}
    after = {"keys": ["y", "x", "z", "w"]}
    found = comparison_of([True, False, True], [False, True, True, True], base=before, new=after).evaluations[0]
    assert (found.matched, found.metrics[0].improved, found.metrics[0].worsened) == (3, 0, 0)
    assert [str(gap) for gap in found.gaps] == ["new: 1 row without a counterpart (row 3)"]


def test_equal_rows_of_a_dataset_are_paired_in_their_order() -> None:
    found = comparison_of(
        [True, False, False], [False, True], base={"keys": ["k"] * 3}, new={"keys": ["k"] * 2}, changed_rows=9
    ).evaluations[0]
    assert found.matched == 2
    assert [(row.index, row.baseline, row.value) for row in found.metrics[0].changed] == [(0, 1, 0), (1, 0, 1)]


@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9), max_size=20))
def test_pairs_are_those_of_a_dictionary(left: list[int], right: list[int]) -> None:
    def numbered(keys: list[int]) -> dict[tuple[int, int], int]:
        return {(key, keys[:place].count(key)): place for place, key in enumerate(keys)}

    found = pair_rows(digests(map(str, left)), digests(map(str, right)))
    pairs = list(zip(found.left.tolist(), found.right.tolist(), strict=True))
    of_left, of_right = numbered(left), numbered(right)
    assert sorted(pairs[: found.both]) == sorted((of_left[key], of_right[key]) for key in of_left if key in of_right)
    assert sorted(pair for pair in pairs if pair[1] < 0) == sorted(
        (of_left[k], -1) for k in of_left if k not in of_right
    )
    assert sorted(pair for pair in pairs if pair[0] < 0) == sorted(
        (-1, of_right[k]) for k in of_right if k not in of_left
    )


def test_no_common_rows() -> None:
    found = comparison_of([True] * 9, [True] * 9, base={"keys": [f"a{n}" for n in range(9)]})
    assert found.evaluations[0].matched == 0
    assert found.verdict is Verdict.UNDECIDED

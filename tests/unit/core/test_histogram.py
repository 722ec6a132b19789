"""Latency histograms: percentiles within the width of a bucket, and sums that are those of all replies."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.core.histogram import Latency, merged

seconds = st.floats(min_value=0.001, max_value=3600)


@given(st.lists(seconds, min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_the_nearest_rank_within_half_a_bucket(times: list[float], share: float) -> None:
    found = reduce(add, map(Latency.of, times)).quantile(share)
    exact = sorted(times)[max(1, math.ceil(share * len(times))) - 1]
    assert found == pytest.approx(exact, rel=2 ** (1 / 16) - 1 + 1e-9)


@given(st.lists(seconds), st.lists(seconds))
def test_a_sum_is_the_histogram_of_all_replies(left: list[float], right: list[float]) -> None:
    of_left, of_right = (merged((Latency.of(time), 1) for time in times) for times in (left, right))
    together = merged((Latency.of(time), 1) for time in left + right)
    assert of_left + of_right == together
    assert together.total == len(left) + len(right)
    assert Latency.from_text(together.to_text()) == together


def test_no_replies_have_no_quantile() -> None:
    assert Latency().quantile(0.5) is None
    assert Latency.from_text("") == Latency()


@pytest.mark.parametrize("text", ["1", "a:b", "1:2,3"])
def test_a_text_that_is_no_histogram(text: str) -> None:
    with pytest.raises(ValueError):
        Latency.from_text(text)


def test_replies_faster_than_a_millisecond_are_in_the_first_bucket() -> None:
    assert Latency.of(0.0) == Latency.of(0.001) == Latency(((0, 1),))

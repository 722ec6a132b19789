"""Histograms and timelines that are made part by part are those of all values at once."""

from __future__ import annotations

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doteval.analysis.distributions import LogCounts, NumberCounts, TimelineCounts

NUMBERS = st.floats(-1e6, 1e6)


@given(st.lists(st.lists(NUMBERS, max_size=30), max_size=5))
def test_numbers_in_parts_are_those_of_all(parts: list[list[float]]) -> None:
    everything = [number for part in parts for number in part]
    if not everything:
        return
    counts = NumberCounts(min(everything), max(everything))
    for part in parts:
        counts.add(part)
    if len(set(everything)) <= 12:
        assert sum(count for _, count in counts.values) == len(everything)
        assert counts.histogram is None
    else:
        assert counts.values == ()
        assert counts.histogram is not None
        assert sum(counts.histogram.counts) == len(everything)
        assert counts.histogram.edges[0] == min(everything)
        assert counts.histogram.edges[-1] == pytest.approx(max(everything))


def test_a_histogram_is_that_of_numpy() -> None:
    numbers = numpy.random.default_rng(1).normal(size=5_000)
    counts = NumberCounts(float(numbers.min()), float(numbers.max()))
    for part in numpy.array_split(numbers, 7):
        counts.add(part.tolist())
    expected, edges = numpy.histogram(numbers, bins=24)
    assert counts.histogram is not None
    assert counts.histogram.counts == tuple(expected)
    assert counts.histogram.edges == pytest.approx(tuple(edges))


def test_numbers_that_are_too_far_apart_have_no_bars() -> None:
    counts = NumberCounts(-1.7e308, 1.7e308)
    counts.add([-1.7e308, *map(float, range(20)), 1.7e308])
    assert counts.histogram is None


@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0, 6.0])
def test_quantiles_are_within_a_bucket(spread: float) -> None:
    values = numpy.random.default_rng(2).lognormal(3, spread, size=2_001)
    counts = LogCounts(1e-9)
    for part in numpy.array_split(values, 4):
        counts.add(part.tolist())
    assert counts.quantile(0.5) == pytest.approx(float(numpy.median(values)), rel=0.046)
    histogram = counts.histogram
    assert histogram is not None
    assert len(histogram.counts) <= 24
    assert sum(histogram.counts) == 2_001
    assert histogram.edges[0] <= values.min() * 1.0001
    assert histogram.edges[-1] >= values.max() * 0.9999


def test_the_smallest_values_and_none() -> None:
    counts = LogCounts(1.0)
    assert (counts.histogram, counts.quantile(0.5), counts.total) == (None, None, 0)
    counts.add([0.0, 0.5, 1.0])
    assert counts.histogram is not None
    assert counts.histogram.counts == (3,)


@given(
    st.lists(
        st.lists(st.tuples(st.floats(0, 1e9), st.booleans(), st.none() | st.integers(1, 300)), max_size=40), max_size=4
    )
)
def test_a_timeline_counts_every_row_once(parts: list[list[tuple[float, bool, int | None]]]) -> None:
    counts = TimelineCounts()
    for part in parts:
        counts.add([each[0] for each in part], [each[1] for each in part], [each[2] for each in part])
    found = counts.timeline()
    everything = [each for part in parts for each in part]
    if found is None:
        assert not everything
        return
    assert len(found.done) == len(found.failed) <= 64
    assert sum(found.done) == sum(not failed for _, failed, _ in everything)
    assert sum(found.failed) == sum(failed for _, failed, _ in everything)
    times = [ended for ended, _, _ in everything]
    assert found.start <= min(times)
    assert found.start + found.seconds >= max(times)
    by_worker = {worker: sum(each) for worker, each in found.workers}
    assert by_worker == {worker: sum(each[2] == worker for each in everything) for worker in by_worker}
    assert set(by_worker) == {worker for _, _, worker in everything}


def test_worker_processes_beyond_200_are_counted_together() -> None:
    counts = TimelineCounts()
    for worker in range(1, 251):
        counts.add([float(worker)], [False], [worker])
    found = counts.timeline()
    assert found is not None
    assert found.more_workers
    assert len(found.workers) == 200
    assert sum(found.done) == 250

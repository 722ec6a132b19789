"""Metrics of rows that have several samples (``--epochs``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doteval.metrics.base import Calculation
from doteval.metrics.intervals import Interval
from doteval.metrics.mean_intervals import mean_interval
from doteval.metrics.reducers import reducer
from doteval.metrics.registry import metric


@metric
def pass_at_k(k: int) -> Calculation:
    """The probability that at least one of `k` samples of a row is right, averaged over the rows.

    `doteval.metrics.reducers.pass_at_k` has the formula. The metric takes one sequence of scores for each row.

    >>> pass_at_k(1)([[True, False], [False, False]])
    0.25

    Raises ValueError if `k` is below 1, or if a row has fewer than `k` samples.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")

    reduce = reducer(f"pass_at_{k}")

    def estimates(rows: Sequence[Sequence[Any]]) -> list[float]:
        return [reduce(row) for row in rows]

    def value(rows: Sequence[Sequence[Any]]) -> float:
        values = estimates(rows)
        if not values:
            raise ValueError("needs at least one row")
        return sum(values) / len(values)

    def interval(rows: Sequence[Sequence[Any]]) -> Interval | None:
        return mean_interval(estimates(rows))

    return Calculation(value, interval=interval, per_row=True)

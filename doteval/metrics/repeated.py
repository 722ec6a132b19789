"""Metrics of rows that have several samples (``--epochs``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from doteval.core.wording import counted
from doteval.metrics.base import Calculation
from doteval.metrics.intervals import Interval, as_number, mean_interval
from doteval.metrics.registry import metric


@metric
def pass_at_k(k: int) -> Calculation:
    """The probability that at least one of `k` samples of a row is right, averaged over the rows.

    This is the unbiased estimator of Chen et al., Evaluating Large Language Models Trained on Code, 2021
    (arXiv:2107.03374), section 2.1: with n samples of which c are right, 1 - C(n-c, k) / C(n, k), computed as
    the product of 1 - k / i for i from n-c+1 to n. The metric takes one sequence of scores for each row.

    >>> pass_at_k(1)([[True, False], [False, False]])
    0.25

    Raises ValueError if `k` is below 1, or if a row has fewer than `k` samples.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")

    def estimates(rows: Sequence[Sequence[Any]]) -> list[float]:
        return [_pass_at_k(len(row), sum(as_number(score) == 1.0 for score in row), k) for row in rows]

    def value(rows: Sequence[Sequence[Any]]) -> float:
        values = estimates(rows)
        if not values:
            raise ValueError("needs at least one row")
        return sum(values) / len(values)

    def interval(rows: Sequence[Sequence[Any]]) -> Interval | None:
        return mean_interval(estimates(rows))

    return Calculation(value, interval=interval, per_row=True)


def _pass_at_k(n: int, right: int, k: int) -> float:
    if n < k:
        raise ValueError(
            f"pass@{k} needs {counted(k, 'sample')} of each row, but a row has {n}: use --epochs {k} or more"
        )
    if n - right < k:
        return 1.0
    product = 1.0
    for i in range(n - right + 1, n + 1):
        product *= 1.0 - k / i
    return 1.0 - product

"""Metrics of bools and numbers: their mean, their spread, and the uncertainty of the mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from doteval.metrics.base import Calculation
from doteval.metrics.intervals import as_number
from doteval.metrics.mean_intervals import mean_interval, share_interval
from doteval.metrics.registry import metric


@metric
def accuracy() -> Calculation:
    """The share of rows that are right: the mean of the scores, 0.0 for no scores.

    A pair (predicted, expected) is right if both are equal; a number between 0 and 1 is partly right.

    >>> accuracy()([True, False, ("a", "a"), 0.5])
    0.625
    """
    return Calculation(lambda scores: _mean(scores) if scores else 0.0, interval=share_interval, average=True)


@metric
def mean() -> Calculation:
    """The arithmetic mean; NaN for no scores.

    >>> mean()([1, 2, 6])
    3.0
    """
    return Calculation(_mean, interval=mean_interval, average=True)


@metric
def std() -> Calculation:
    """The sample standard deviation, with n - 1 in the denominator (Bessel); NaN for fewer than two scores.

    >>> std()([2, 4, 6])
    2.0
    """
    return Calculation(_std, better="neither")


@metric
def stderr() -> Calculation:
    """The standard error of the mean, s / √n with s as in `std`; NaN for fewer than two scores.

    >>> stderr()([2, 4, 6, 8, 8, 8, 8, 8, 2]) == std()([2, 4, 6, 8, 8, 8, 8, 8, 2]) / 3
    True
    """
    return Calculation(_stderr, interval=lambda _scores: None, better="neither")


@metric
def ci95() -> Calculation:
    """The 95% interval of the mean, as `doteval.metrics.mean_intervals.mean_interval` computes it, or None.

    In a summary, the value of this metric is the mean.

    >>> low, high = ci95()([True] * 81 + [False] * 182)
    >>> f"{low:.4f} {high:.4f}"
    '0.2553 0.3662'
    """
    return Calculation(mean_interval, interval=mean_interval, average=True)


def _mean(scores: Sequence[Any]) -> float:
    if not scores:
        return math.nan
    return _sum(_numbers(scores)) / len(scores)


def _std(scores: Sequence[Any]) -> float:
    if len(scores) < 2:
        return math.nan
    n = len(scores)
    if set(map(type, scores)) <= {bool}:
        # For a share p this is √(p (1 - p) n / (n - 1)), which needs only a count.
        right = scores.count(True)
        return math.sqrt(right * (n - right) / (n * (n - 1)))
    numbers = _numbers(scores)
    centre = _sum(numbers) / n
    return math.sqrt(math.fsum((number - centre) ** 2 for number in numbers) / (n - 1))


def _stderr(scores: Sequence[Any]) -> float:
    return _std(scores) / math.sqrt(len(scores)) if scores else math.nan


def _sum(numbers: Sequence[float]) -> float:
    # fsum gives the same sum in any order, and rows complete in any order.
    try:
        return math.fsum(numbers)
    except ValueError:
        # Both infinities are among the numbers; other sums of them give NaN.
        return math.nan


def _numbers(scores: Sequence[Any]) -> Sequence[float]:
    # Bools, integers and floats can be summed as they are, without a call for each of a million scores.
    if set(map(type, scores)) <= {bool, float, int}:
        return scores
    return [as_number(score) for score in scores]

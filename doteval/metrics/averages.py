"""Metrics of bools and numbers: how much, how spread, how sure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from doteval.metrics.base import Calculation
from doteval.metrics.intervals import as_number, mean_interval
from doteval.metrics.registry import metric


@metric
def accuracy() -> Calculation:
    """The share of rows that are right: the mean of the scores, 0.0 for no scores.

    A pair (predicted, expected) is right if both are equal; a number between 0 and 1 is partly right.
    """
    return Calculation(lambda scores: _mean(scores) if scores else 0.0, interval=mean_interval, average=True)


@metric
def mean() -> Calculation:
    """The arithmetic mean; NaN for no scores."""
    return Calculation(_mean, interval=mean_interval, average=True)


@metric
def std() -> Calculation:
    """The sample standard deviation, with n - 1 in the denominator (Bessel); NaN below two scores."""
    return Calculation(_std)


@metric
def stderr() -> Calculation:
    """The standard error of the mean: s / √n, s as in `std`; NaN below two scores."""
    return Calculation(_stderr, interval=lambda _scores: None)


@metric
def ci95() -> Calculation:
    """The 95% interval of the mean: see `doteval.metrics.intervals.mean_interval`.

    Calling it gives the Interval, or None. In a summary the value is the mean.
    """
    return Calculation(mean_interval, interval=mean_interval, average=True)


def _mean(scores: Sequence[Any]) -> float:
    if not scores:
        return math.nan
    # fsum: the same total in whichever order the rows came back.
    return math.fsum(_numbers(scores)) / len(scores)


def _std(scores: Sequence[Any]) -> float:
    if len(scores) < 2:
        return math.nan
    n = len(scores)
    if set(map(type, scores)) <= {bool}:
        # Of a share p: √(p (1 - p) n / (n - 1)), the same figure from a count alone.
        right = scores.count(True)
        return math.sqrt(right * (n - right) / (n * (n - 1)))
    numbers = _numbers(scores)
    centre = math.fsum(numbers) / n
    return math.sqrt(math.fsum((number - centre) ** 2 for number in numbers) / (n - 1))


def _stderr(scores: Sequence[Any]) -> float:
    return _std(scores) / math.sqrt(len(scores)) if scores else math.nan


def _numbers(scores: Sequence[Any]) -> Sequence[float]:
    # Bools and floats add up as they are; a million of them must not cost a call each.
    if set(map(type, scores)) <= {bool, float, int}:
        return scores
    return [as_number(score) for score in scores]

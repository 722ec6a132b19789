"""The 95% intervals of means of scores: of true/false values, shares and other numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from doteval.metrics.intervals import Interval, as_number, narrowed, wilson


def mean_interval(scores: Sequence[Any]) -> Interval | None:
    """The interval of the mean of bools, numbers or (predicted, expected) pairs.

    Bools and pairs have Wilson's interval. Numbers have that of `doteval.metrics.studentized.units_interval`, a seeded
    studentized bootstrap up to `BOOTSTRAP_LIMIT` values and Student's beyond; it is None where their spread is not
    known, as for fewer than two numbers and for equal numbers.
    """
    right = _right(scores)
    if right is not None:
        return wilson(right, len(scores))
    import numpy

    from doteval.metrics.studentized import units_interval

    values = numpy.fromiter(map(as_number, scores), dtype=float, count=len(scores))
    return units_interval(values, numpy.ones(len(values)))


def share_interval(scores: Sequence[Any]) -> Interval | None:
    """The interval of the mean of scores that are true or false, or shares: `mean_interval`, no wider than Wilson's.

    No scores between 0 and 1 spread more than true/false scores with the same mean, so that Wilson's interval of these
    bounds each side. It is also the interval where the spread of shares is not known.

    >>> found = share_interval([1.0] * 10)
    >>> f"{found.low:.3f} {found.high} {found.method}"
    '0.722 1.0 wilson'
    """
    found = mean_interval(scores)
    if _right(scores) is not None:
        return found
    numbers = list(map(as_number, scores))
    if len(numbers) < 2 or not all(0 <= number <= 1 for number in numbers):
        return found
    return narrowed(found, wilson(math.fsum(numbers), len(numbers)))


def _right(scores: Sequence[Any]) -> int | None:
    """The number of right ones among bools and pairs; None if the scores are others."""
    if set(map(type, scores)) <= {bool}:
        return scores.count(True)
    if any(isinstance(score, (tuple, list)) for score in scores):
        return sum(bool(as_number(score)) for score in scores)
    return None

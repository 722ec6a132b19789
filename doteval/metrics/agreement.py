"""Computes how far raters agree beyond chance: Cohen's kappa of two raters, and Krippendorff's alpha of any number.

Both are 1 where the raters agree on everything, and 0 where they agree as often as chance would have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.metrics.intervals import SEED, Interval

Ratings = Sequence[Sequence[Hashable]]
"""The values that raters gave each unit; for kappa two, in the same order for each."""

_RESAMPLES = 2_000
# Percentiles of what is left say nothing when so many resamples have no value.
_MOST_UNDEFINED = 0.05


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far raters agree.

    value: None where it is not defined, because all ratings are the same.
    interval: None where too many resamples have no value.
    """

    statistic: str
    value: float | None
    interval: Interval | None


def cohens_kappa(ratings: Ratings, *, quadratic: bool = False) -> float | None:
    """Cohen's kappa of two raters (J. Cohen, A coefficient of agreement for nominal scales, 1960).

    quadratic: whether a disagreement counts by the square of its distance (J. Cohen, Weighted kappa, 1968): the ranks
        of the values that occur are compared, so they must be numbers.

    None if it is not defined: both raters gave every unit the same value, or there are no units.

    >>> round(cohens_kappa([(1, 1), (1, 0), (0, 0), (0, 0)]), 3)
    0.5
    """
    codes, weights = _codes(ratings), None
    if quadratic:
        import numpy

        ranks = numpy.arange(len(codes))
        weights = (ranks[:, None] - ranks[None, :]) ** 2
    return _kappa(_pairs(ratings, codes), weights)


def krippendorffs_alpha(ratings: Ratings, *, interval: bool = False) -> float | None:
    """Krippendorff's alpha of any number of raters, who may have left units out (K. Krippendorff, Content Analysis).

    interval: whether the values are numbers whose distances matter; otherwise values are the same or not.

    None if it is not defined: there are no units with two ratings, or all ratings are the same.

    >>> round(krippendorffs_alpha([(1, 1, 1), (1, 0), (0, 0), (0,)]), 3)
    0.5
    """
    codes = _codes(ratings)
    return _alpha(_counts(ratings, codes), _distances(codes, interval=interval))


def kappa_agreement(ratings: Ratings, *, quadratic: bool = False) -> Agreement:
    """Cohen's kappa, with a 95% interval by resampling units."""
    import numpy

    codes = _codes(ratings)
    pairs = _pairs(ratings, codes)
    ranks = numpy.arange(len(codes))
    weights = (ranks[:, None] - ranks[None, :]) ** 2 if quadratic else None
    name = "quadratic kappa" if quadratic else "kappa"
    return _agreement(name, pairs, lambda drawn: _kappa(drawn, weights))


def alpha_agreement(ratings: Ratings, *, interval: bool = False) -> Agreement:
    """Krippendorff's alpha, with a 95% interval by resampling units."""
    codes = _codes(ratings)
    distances = _distances(codes, interval=interval)
    name = "interval alpha" if interval else "alpha"
    return _agreement(name, _counts(ratings, codes), lambda drawn: _alpha(drawn, distances))


def _agreement(name: str, units: Any, calculate: Callable[[Any], float | None]) -> Agreement:
    """The percentile bootstrap over units (B. Efron, Bootstrap methods, 1979), with a fixed seed."""
    import numpy

    generator = numpy.random.default_rng(SEED)
    count = len(units)
    resamples = _RESAMPLES if count else 0
    drawn = (calculate(units[generator.integers(0, count, count)]) for _ in range(resamples))
    values = [value for value in drawn if value is not None]
    interval = None
    if len(values) >= (1 - _MOST_UNDEFINED) * _RESAMPLES:
        low, high = numpy.percentile(values, [2.5, 97.5])
        interval = Interval(float(low), float(high), "bootstrap")
    return Agreement(name, calculate(units), interval)


def _codes(ratings: Ratings) -> dict[Any, int]:
    """The values that occur, numbers in order, each with its place."""
    values = dict.fromkeys(value for unit in ratings for value in unit)
    numbers = all(isinstance(value, bool | int | float) for value in values)
    return {value: code for code, value in enumerate(sorted(values) if numbers else values)}  # type: ignore[type-var]


def _pairs(ratings: Ratings, codes: dict[Any, int]) -> Any:
    import numpy

    return numpy.array([[codes[first], codes[second]] for first, second in ratings], dtype=int).reshape(-1, 2)


def _kappa(pairs: Any, weights: Any) -> float | None:
    import numpy

    if not len(pairs):
        return None
    size = int(pairs.max()) + 1 if weights is None else len(weights)
    table = numpy.bincount(pairs[:, 0] * size + pairs[:, 1], minlength=size * size).reshape(size, size) / len(pairs)
    expected = numpy.outer(table.sum(axis=1), table.sum(axis=0))
    if weights is None:
        weights = 1 - numpy.eye(size)
    by_chance = float((weights * expected).sum())
    return None if math.isclose(by_chance, 0.0, abs_tol=1e-12) else 1 - float((weights * table).sum()) / by_chance


def _counts(ratings: Ratings, codes: dict[Any, int]) -> Any:
    """How often each unit got each value; only units with two ratings say anything of agreement."""
    import numpy

    counts = numpy.zeros((len(ratings), max(1, len(codes))))
    for place, unit in enumerate(ratings):
        for value in unit:
            counts[place, codes[value]] += 1
    return counts[counts.sum(axis=1) >= 2]


def _distances(codes: dict[Any, int], *, interval: bool) -> Any:
    import numpy

    if not interval:
        return 1 - numpy.eye(max(1, len(codes)))
    values = numpy.array([float(value) for value in codes] or [0.0])
    return (values[:, None] - values[None, :]) ** 2


def _alpha(counts: Any, distances: Any) -> float | None:
    if not len(counts):
        return None
    raters = counts.sum(axis=1)
    total = float(raters.sum())
    # Pairs of ratings of one unit, each unit weighted by 1 / (raters - 1); and of all ratings, whatever the unit.
    within = ((counts @ distances) * counts).sum(axis=1) / (raters - 1)
    values = counts.sum(axis=0)
    by_chance = float(values @ distances @ values) / (total - 1)
    return None if math.isclose(by_chance, 0.0, abs_tol=1e-12) else 1 - float(within.sum()) / by_chance

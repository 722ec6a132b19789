"""Computes the 95% interval of a mean over units: rows, or clusters of rows that are not independent.

It imports numpy; scipy only for Student's quantiles.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator

import numpy
from numpy.typing import NDArray

from doteval.metrics.intervals import BOOTSTRAP_LIMIT, LEVEL, SEED, Interval

Numbers = NDArray[numpy.float64]

# With r resamples, the (r + 1) · 0.025-th smallest is the quantile, which should be a whole number.
RESAMPLES = 1_999
# Numbers in memory at a time, while something is resampled.
_AT_ONCE = 2_000_000
# Numbers that stay in a processor's cache while they are counted, which takes a third of the time.
_IN_CACHE = 100_000
# The resamples of so many units, 1.6 MB, are kept.
_FEW = 100


def units_interval(sums: Numbers, sizes: Numbers) -> Interval | None:
    """Return the interval of the mean Σ sums / Σ sizes, of which each unit has a sum and a number of values.

    It is the mean plus and minus multiples (`studentized_reach`) of its standard error (`standard_error`). The result
    is None if the spread is not known: for fewer than two units, for equal values, if nearly all values are equal and
    there are so few that a resample may have only these, and if a number is not finite.

    >>> found = units_interval(numpy.array([1.0, 2.0, 4.0, 5.0]), numpy.ones(4))
    >>> f"{found.low:.2f} {found.high:.2f} {found.method}"
    '-3.39 9.39 bootstrap-t'
    """
    if len(sums) < 2 or not numpy.isfinite(sums).all():
        return None
    with numpy.errstate(all="ignore"):
        mean, error = standard_error(sums, sizes)
        # Of equal values, rounding may leave an error that is no spread.
        if not math.isfinite(error) or error <= 1e-12 * float(numpy.abs(sums).max()) / float(sizes.max()):
            return None
        below, above, method = studentized_reach(sums, sizes, mean, error)
        low, high = mean - below * error, mean + above * error
    return Interval(low, high, method) if math.isfinite(low) and math.isfinite(high) else None


def standard_error(sums: Numbers, sizes: Numbers) -> tuple[float, float]:
    """Return the mean Σ sums / Σ sizes of at least two units, and its standard error.

    With the residuals r = sum - mean · size of G units it is √(G / (G - 1) · Σ r²) / Σ sizes. This is the
    cluster-robust error of K.-Y. Liang and S. L. Zeger, Longitudinal data analysis using generalized linear models,
    Biometrika 73, 1986, which E. Miller, Adding Error Bars to Evals, 2024 (arXiv:2411.00640), section 2.2, gives for
    evaluations; G / (G - 1) is the usual correction for few clusters. For units of size 1 it is s / √G.

    >>> mean, error = standard_error(numpy.array([1.0, 2.0, 4.0, 5.0]), numpy.ones(4))
    >>> f"{mean} {error:.4f}"
    '3.0 0.9129'
    """
    units, total = len(sums), float(sizes.sum())
    mean = float(sums.sum()) / total
    rest = sums - mean * sizes
    return mean, math.sqrt(units / (units - 1) * float(rest @ rest)) / total


def studentized_reach(sums: Numbers, sizes: Numbers, mean: float, error: float) -> tuple[float, float, str]:
    """Return how many standard errors the interval of a mean reaches below and above it, and the name of the method.

    It is the studentized bootstrap over units (B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap, 1993,
    section 12.5), on neither side shorter than Student's: with ten units, the first is too short if many of them are
    equal, the second if they are skewed. Beyond `BOOTSTRAP_LIMIT` units it is Student's. Where most units are equal,
    resamples without any other have no spread, and a reach may be infinite.

    error: the standard error of the mean, above 0.
    """
    student = student_quantile((1 + LEVEL) / 2, len(sums) - 1)
    if len(sums) > BOOTSTRAP_LIMIT:
        return student, student, "t"
    least, most = _bootstrap_quantiles(sums, sizes, mean, error)
    return max(student, most), max(student, -least), "bootstrap-t"


def student_quantile(level: float, freedom: int) -> float:
    """Return the quantile of Student's distribution with some degrees of freedom."""
    # A part of scipy that takes a tenth of the time of scipy.stats to import.
    from scipy.special import stdtrit

    return float(stdtrit(freedom, level))


def parts(count: int, width: int, numbers: int = _AT_ONCE) -> Iterator[int]:
    """Split `count` rows of `width` numbers into parts of at most so many numbers, by default as memory allows."""
    part = max(1, numbers // width)
    for first in range(0, count, part):
        yield min(part, count - first)


def _bootstrap_quantiles(sums: Numbers, sizes: Numbers, mean: float, error: float) -> tuple[float, float]:
    """The 2.5% and the 97.5% quantile of (mean of a resample - mean) / its standard error.

    A resample is how often it has each unit, so that its sums are products of matrices. They are of residuals, which
    keeps the digits of values with a small spread.
    """
    units = len(sums)
    rest = sums - mean * sizes
    ratios = []
    for times in _resamples(RESAMPLES, units):
        totals = times @ sizes
        shifts = times @ rest / totals
        # Σ times · (rest - shift · size)²
        squares = times @ rest**2 - 2 * shifts * (times @ (rest * sizes)) + shifts**2 * (times @ sizes**2)
        errors = numpy.sqrt(units / (units - 1) * numpy.maximum(squares, 0.0)) / totals
        # The squares of a resample of equal units are rounding errors.
        spread = errors > 1e-6 * error
        infinite = numpy.where(numpy.abs(shifts) > 1e-9 * error, numpy.copysign(numpy.inf, shifts), 0.0)
        ratios.append(numpy.where(spread, shifts / numpy.where(spread, errors, 1.0), infinite))
    ordered = numpy.sort(numpy.concatenate(ratios))
    places = (round(share * (RESAMPLES + 1)) - 1 for share in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    least, most = (float(ordered[place]) for place in places)
    return least, most


def _resamples(count: int, units: int) -> Iterable[Numbers]:
    """Resamples of so many units, in parts: a line each, with how often it has each unit."""
    return _few_resamples(count, units) if units <= _FEW else _drawn_resamples(count, units)


@functools.lru_cache(maxsize=4)
def _few_resamples(count: int, units: int) -> tuple[Numbers, ...]:
    # Ten thousand evaluations of ten rows each have the same ones.
    return tuple(_drawn_resamples(count, units))


def _drawn_resamples(count: int, units: int) -> Iterator[Numbers]:
    random = numpy.random.default_rng(SEED)
    for part in parts(count, units, _IN_CACHE):
        drawn = random.integers(units, size=(part, units)) + numpy.arange(part)[:, None] * units
        yield numpy.bincount(drawn.ravel(), minlength=part * units).reshape(part, units).astype(numpy.float64)

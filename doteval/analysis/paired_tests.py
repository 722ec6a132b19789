"""Tests and intervals of paired differences: of true/false values, of means, and of any other metric.

A unit is what is independent of the rest: a row, or a cluster of rows. All random numbers are seeded, so that the same
results give the same figures every time and on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist
from typing import Any

import numpy
from numpy.typing import NDArray

from doteval.metrics import Interval
from doteval.metrics.intervals import LEVEL, SEED, Z
from doteval.metrics.studentized import parts, standard_error, student_quantile, studentized_reach

ALPHA = 1 - LEVEL
POWER = 0.8

Numbers = NDArray[numpy.float64]

FLIPS = 9_999
# So many units that differ have 16,384 ways to flip their signs: all of them are tried.
_ALL_FLIPS = 14
# Beyond so many, the sum of flipped differences is normal to the precision of 9,999 flips.
_MOST_FLIPPED = 5_000
# Differences with few sizes, as of 1-to-5 scores, are flipped size by size, whatever their number.
_FEW_SIZES = 64
# With fewer units that differ, the spread of the differences says little.
_FEW_DIFFERING = 10

# A metric that has to be called for each resample is called with at most 5 million values in all; for more
# values, groups of units are deleted in turn.
_CALLED_RESAMPLES = 999
_CALLED_LIMIT = 2_500
_GROUPS = 20


@dataclass(frozen=True, slots=True)
class Estimate:
    """A difference between two paired groups of values.

    interval: its 95% interval, None where none is defined.
    p_value: of the hypothesis that the two groups do not differ, None where there is none.
    test: what computed the p-value.
    standard_error: of the difference, None if it is not known.
    units: the number of units.
    """

    difference: float
    interval: Interval | None
    p_value: float | None
    test: str
    standard_error: float | None
    units: int


def true_false_estimate(improved: int, worsened: int, n: int) -> Estimate:
    """The difference of two shares of true values in `n` pairs, of which some changed to true and some to false.

    The p-value is that of McNemar's exact test (Q. McNemar, Note on the sampling error of the difference between
    correlated proportions, Psychometrika 12, 1947). The interval is Bonett and Price's (D. G. Bonett and R. M. Price,
    Adjusted Wald confidence interval for a difference of binomial proportions based on paired data, Journal of
    Educational and Behavioral Statistics 37, 2012): Laplace's correction adds one pair to each kind of change and two
    pairs in all, without which it is too narrow if few pairs changed or none did.

    >>> found = true_false_estimate(1, 8, 100)
    >>> found.difference, round(found.p_value, 4)
    (-0.07, 0.0391)
    """
    rose, fell = (improved + 1) / (n + 2), (worsened + 1) / (n + 2)
    error = math.sqrt((rose + fell - (rose - fell) ** 2) / (n + 2))
    centre, margin = rose - fell, Z * error
    interval = Interval(max(-1.0, centre - margin), min(1.0, centre + margin), "bonett-price")
    return Estimate((improved - worsened) / n, interval, mcnemar(improved, worsened), "mcnemar-exact", error, n)


def mcnemar(improved: int, worsened: int) -> float:
    """The p-value of McNemar's exact two-sided test; 1.0 if no pair changed.

    >>> mcnemar(0, 0)
    1.0
    >>> mcnemar(3, 0)
    0.25
    """
    changed = improved + worsened
    if changed == 0:
        return 1.0
    # A part of scipy that takes a tenth of the time of scipy.stats to import.
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(improved, worsened), changed, 0.5)))


def mean_estimate(sums: Numbers, sizes: Numbers, limit: float) -> Estimate:
    """The mean of paired differences, of which each unit has a sum and a number.

    The p-value is that of the permutation test that exchanges the two values of a pair, which flips the sign of its
    difference; a cluster is flipped as a whole (E. J. G. Pitman, Significance tests which may be applied to samples
    from any populations, Supplement to the Journal of the Royal Statistical Society 4, 1937).

    The interval is that of the studentized bootstrap over units (B. Efron and R. J. Tibshirani, An Introduction to the
    Bootstrap, 1993, section 12.5), and on neither side narrower than Student's: with ten units, the first is too
    narrow if many of them do not differ, the second if the differences are skewed. Beyond 2,000 units it is Student's.
    The mean of units of unequal size is a ratio, with the standard error of W. G. Cochran, Sampling Techniques, 1977,
    section 2.11, without its correction for finite populations. If fewer than ten units differ, the interval is also
    not narrower than with two more units, one with the greatest difference and one with its negative, as Bonett and
    Price add them for true/false values. If no unit differs, a mean of values between -`limit` and `limit` is at most
    `limit` · (1 - 0.025^(1/units)) from 0, since a greater share of units that differ would have shown one (C. J.
    Clopper and E. S. Pearson, Biometrika 26, 1934).

    limit: the greatest difference that a pair may have.

    >>> found = mean_estimate(numpy.array([0.5, 0.25, 0.0, 0.25, 0.5, 0.5]), numpy.ones(6), 1.0)
    >>> round(found.difference, 4), round(found.p_value, 4)
    (0.3333, 0.0625)
    """
    units, total = len(sums), float(sizes.sum())
    difference = float(sums.sum()) / total
    p_value, test = _sign_flips(sums)
    if units < 2:
        return Estimate(difference, None, p_value, test, None, units)
    _, error = standard_error(sums, sizes)
    if error <= 1e-12 * float(numpy.abs(sums).max()):
        reach = limit * (1 - (ALPHA / 2) ** (1 / units))
        bounded = not sums.any() and math.isfinite(reach)
        interval = Interval(-reach, reach, "clopper-pearson") if bounded else None
        return Estimate(difference, interval, p_value, test, None, units)
    below, above, method = studentized_reach(sums, sizes, difference, error)
    low, high = difference - below * error, difference + above * error
    if numpy.count_nonzero(sums) < _FEW_DIFFERING:
        wider = _laplace_interval(sums, sizes)
        low, high = min(low, wider[0]), max(high, wider[1])
    # Where most units do not differ, the reach may be infinite.
    interval = Interval(max(-limit, low), min(limit, high), method)
    return Estimate(difference, interval, p_value, test, error, units)


def _laplace_interval(sums: Numbers, sizes: Numbers) -> tuple[float, float]:
    """The normal interval with two more units of average size, of the greatest difference and its negative."""
    greatest = float(numpy.abs(sums).max())
    total = float(sizes.sum()) * (1 + 2 / len(sums))
    centre = float(sums.sum()) / total
    rest = sums - centre * sizes
    margin = Z * math.sqrt(float(rest @ rest) + 2 * greatest**2) / total
    return centre - margin, centre + margin


def _sign_flips(sums: Numbers) -> tuple[float, str]:
    """The two-sided p-value of the test that flips signs, and how it was computed.

    Flips that are drawn count the observed ones among them (B. Phipson and G. K. Smyth, Permutation p-values should
    never be zero, Statistical Applications in Genetics and Molecular Biology 9, 2010).
    """
    differing = sums[sums != 0]
    if not len(differing):
        return 1.0, "permutation-exact"
    # Sums of one set of numbers in another order may differ in their last digits.
    observed = abs(float(sums.sum())) - 1e-9 * float(numpy.abs(sums).sum())
    if len(differing) <= _ALL_FLIPS:
        ways = numpy.arange(2 ** len(differing))[:, None] >> numpy.arange(len(differing)) & 1
        flipped = (2.0 * ways - 1.0) @ differing
        return float((numpy.abs(flipped) >= observed).mean()), "permutation-exact"
    random = numpy.random.default_rng(SEED)
    sizes, counts = numpy.unique(numpy.abs(differing), return_counts=True)
    if len(sizes) <= _FEW_SIZES:
        total = sum(
            size * (2.0 * random.binomial(count, 0.5, FLIPS) - count) for size, count in zip(sizes, counts, strict=True)
        )
        return _drawn_p(int((numpy.abs(total) >= observed).sum()), FLIPS), "permutation"
    if len(differing) > _MOST_FLIPPED:
        # By the central limit theorem; the flipped sum has the variance Σ d².
        z = abs(float(differing.sum())) / math.sqrt(float(differing @ differing))
        return math.erfc(z / math.sqrt(2)), "permutation-normal"
    extreme = 0
    for count in parts(FLIPS, len(differing)):
        octets = random.bytes(count * (-(-len(differing) // 8)))
        bits = numpy.unpackbits(numpy.frombuffer(octets, numpy.uint8).reshape(count, -1), axis=1)
        flipped = 2.0 * (bits[:, : len(differing)].astype(numpy.float64) @ differing) - differing.sum()
        extreme += int((numpy.abs(flipped) >= observed).sum())
    return _drawn_p(extreme, FLIPS), "permutation"


def metric_estimate(
    baseline: Sequence[Sequence[Any]], other: Sequence[Sequence[Any]], value: Callable[[Sequence[Any]], Any]
) -> Estimate:
    """The difference of any metric of paired values, of which each unit has some.

    The p-value is that of the permutation test that exchanges the two sides of units. The interval is the difference
    ± Student's quantile times the standard error of the paired bootstrap over units (B. Efron and R. J. Tibshirani, An
    Introduction to the Bootstrap, 1993, chapters 6 and 12). For more than 2,500 values both are Student's, with the
    standard error of the delete-a-group jackknife with 20 groups (P. S. Kott, The delete-a-group jackknife, Journal of
    Official Statistics 17, 2001).

    Raises whatever the metric raises, and ValueError if it gives a number that is not finite.

    >>> shares = metric_estimate([[False]] * 9, [[True]] * 5 + [[False]] * 4, lambda values: sum(values) / len(values))
    >>> round(shares.difference, 3), round(shares.p_value, 1)
    (0.556, 0.1)
    """

    def metric(units: Iterator[Sequence[Any]]) -> float:
        number = float(value(list(chain.from_iterable(units))))
        if not math.isfinite(number):
            raise ValueError("the value is not finite")
        return number

    count = len(baseline)
    difference = metric(iter(other)) - metric(iter(baseline))
    random = numpy.random.default_rng(SEED)
    if count < 2:
        return Estimate(difference, None, 1.0, "permutation", None, count)
    if sum(map(len, baseline)) > _CALLED_LIMIT and count >= _GROUPS:
        group = random.permutation(count) % _GROUPS
        without = numpy.array(
            [
                metric(other[unit] for unit in kept) - metric(baseline[unit] for unit in kept)
                for kept in (numpy.flatnonzero(group != deleted).tolist() for deleted in range(_GROUPS))
            ]
        )
        error = math.sqrt((_GROUPS - 1) / _GROUPS * float(((without - difference) ** 2).sum()))
        p_value = 2 * (1 - _student_share(abs(difference) / error, _GROUPS - 1)) if error else 1.0
        margin = student_quantile(1 - ALPHA / 2, _GROUPS - 1) * error
        return _with_margin(difference, margin, p_value, "jackknife", "jackknife", error, count)
    extreme = 0
    for _ in range(_CALLED_RESAMPLES):
        exchanged = random.integers(2, size=count)
        left, right = (
            metric((second if flag else first)[unit] for unit, flag in enumerate(exchanged))
            for first, second in ((baseline, other), (other, baseline))
        )
        extreme += abs(right - left) >= abs(difference) - 1e-12
    drawn = random.integers(count, size=(_CALLED_RESAMPLES, count)).tolist()
    resampled = [metric(other[unit] for unit in units) - metric(baseline[unit] for unit in units) for units in drawn]
    error = float(numpy.std(resampled, ddof=1)) * math.sqrt(count / (count - 1))
    margin = student_quantile(1 - ALPHA / 2, count - 1) * error
    p_value = _drawn_p(extreme, _CALLED_RESAMPLES)
    return _with_margin(difference, margin, p_value, "permutation", "bootstrap", error, count)


def _with_margin(
    difference: float, margin: float, p_value: float, test: str, method: str, error: float, units: int
) -> Estimate:
    # No spread at all says that the metric does not move, as where no unit differs; not that it is known exactly.
    interval = Interval(difference - margin, difference + margin, method) if margin else None
    return Estimate(difference, interval, p_value, test, error or None, units)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for their number: under 0.05 with a chance of 5% in all if nothing differs.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [1.0] * len(p_values)
    so_far = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = so_far
    return adjusted


def detectable_difference(standard_error: float, units: int, comparisons: int) -> float:
    """The difference that would be seen with a power of 80%: (t + z) · standard error.

    t is the quantile of the two-sided test at 5%, shared among the comparisons as Holm's first step does, z that of
    the power (E. Miller, Adding Error Bars to Evals, 2024, arXiv:2411.00640, section 5).

    >>> round(detectable_difference(0.0075, 1319, 1), 4)
    0.021
    """
    level = 1 - ALPHA / 2 / max(1, comparisons)
    return (student_quantile(level, units - 1) + NormalDist().inv_cdf(POWER)) * standard_error


def _student_share(quantile: float, freedom: int) -> float:
    from scipy.special import stdtr

    return float(stdtr(freedom, quantile))


def _drawn_p(extreme: int, drawn: int) -> float:
    return (extreme + 1) / (drawn + 1)

"""Computes 95% intervals: of a share, of a mean, and of any other metric by resampling.

scipy takes half a second and 60 MB to import, so it is imported only when something is resampled.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The quantile of the standard normal distribution for a 95% interval, about 1.96."""

# Time and memory of resampling are proportional to the number of values. The mean of more values than this is
# close enough to normal for any distribution that occurs in practice.
BOOTSTRAP_LIMIT = 2_000

# For a metric that has to be called for every resample: at most half a million scores are passed to it in all.
CALLED_LIMIT = 500
CALLED_RESAMPLES = 1_000

# With fewer scores the percentile bootstrap has the true value too seldom: in simulations of macro F1 and of standard
# deviations in 76% of cases with 10 scores, 89% with 30, 92% with 100, and 94% with 300.
FEW_FOR_BOOTSTRAP = 300

# The seed is fixed, so that the same scores give the same interval every time and on every machine.
SEED = 20_210_707


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% confidence interval.

    method: how it was computed: ``wilson``, ``bootstrap-t`` (studentized), ``t`` (Student's), ``bootstrap`` (of other
        metrics), in comparisons also ``bonett-price`` and ``clopper-pearson``. Clustered ones end with ``-clustered``.
        Those that doteval 0.2 stored may be ``normal``.

    >>> low, high = Interval(0.25, 0.75, "wilson")
    >>> low, high
    (0.25, 0.75)
    """

    low: float
    high: float
    method: str

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))


def wilson(successes: float, n: float) -> Interval | None:
    """The interval of a share `successes / n`; None if n is 0.

    This is Wilson's score interval (E. B. Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22, 1927), without continuity correction. It is written out here because nearly every command
    shows one, and importing scipy would cost each of them 60 MB and half a second.

    >>> low, high = wilson(81, 263)
    >>> f"{low:.4f} {high:.4f}"
    '0.2553 0.3662'
    """
    if n == 0:
        return None
    share, spread = successes / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # For none and for all successes the formula gives 0 and 1 up to a rounding error.
    low = 0.0 if successes == 0 else middle - reach
    high = 1.0 if successes == n else middle + reach
    return Interval(low, high, "wilson")


def narrowed(found: Interval | None, bounds: Interval | None) -> Interval | None:
    """An interval within the bounds of another one, which is also the interval if the first is not known.

    >>> narrowed(Interval(0.1, 1.2, "t"), Interval(0.3, 0.9, "wilson"))
    Interval(low=0.3, high=0.9, method='t')
    """
    if found is None or bounds is None:
        return found or bounds
    return Interval(max(found.low, bounds.low), min(found.high, bounds.high), found.method)


def resampled_interval(scores: Sequence[Any], calculate: Callable[[Sequence[Any]], Any]) -> Interval | None:
    """The interval of any metric: a seeded percentile bootstrap over the scores (Efron 1979).

    The result is None beyond `CALLED_LIMIT` scores, since `calculate` is called for each resample, and if
    `calculate` gives a number that is not finite.
    """
    if not 2 <= len(scores) <= CALLED_LIMIT:
        return None
    import numpy

    n = len(scores)
    drawn = numpy.random.default_rng(SEED).integers(n, size=(CALLED_RESAMPLES, n))
    figures = [float(calculate([scores[index] for index in indexes])) for indexes in drawn]
    if not all(map(math.isfinite, figures)):
        return None
    return _finite(*numpy.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))


def as_number(score: Any) -> float:
    """A score as a number: True is 1, and a pair (predicted, expected) is 1 if both are equal.

    >>> as_number(("a", "a"))
    1.0

    Raises TypeError for anything but a bool, a number or a pair; text is never read as a number.
    """
    if isinstance(score, (tuple, list)):
        if len(score) == 2:
            return float(score[0] == score[1])
    elif not isinstance(score, (str, bytes)) and hasattr(score, "__float__"):
        return float(score)
    raise TypeError(f"needs true/false values, numbers or pairs (predicted, expected), not {type(score).__name__}")


def _finite(low: Any, high: Any) -> Interval | None:
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return Interval(float(low), float(high), "bootstrap")

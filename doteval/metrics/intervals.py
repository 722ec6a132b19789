"""95% intervals: of a share, of a mean, and of anything else by resampling.

scipy takes half a second and 60 MB to import, so it is imported when there is something to resample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

LEVEL = 0.95
Z = NormalDist().inv_cdf(0.5 + LEVEL / 2)
"""The quantile of the standard normal distribution that goes with it: about 1.96."""

# Resampling costs time and memory in proportion to this; beyond it, the mean of so many values is
# close enough to normal for any distribution met in practice.
BOOTSTRAP_LIMIT = 2_000
RESAMPLES = 2_000

# A metric that has to be called for every resample: half a million scores handed to it, at most.
CALLED_LIMIT = 500
CALLED_RESAMPLES = 1_000

# The same scores must give the same interval, on every machine and every time.
SEED = 20_210_707


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% confidence interval. `method` says how it was found: wilson, bootstrap, normal or bonett-price."""

    low: float
    high: float
    method: str

    def __iter__(self) -> Iterator[float]:
        return iter((self.low, self.high))


def wilson(successes: int, n: int) -> Interval | None:
    """The interval of a share `successes / n`; None if n is 0.

    Wilson's score interval (E. B. Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22, 1927), without continuity correction. Written out, since nearly every command
    shows one: scipy's would cost each of them 60 MB and half a second; a test holds the two together.
    """
    if n == 0:
        return None
    share, spread = successes / n, Z * Z / n
    middle = (share + spread / 2) / (1 + spread)
    reach = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    # At the ends the formula gives 0 and 1 but for the last digit.
    low = 0.0 if successes == 0 else middle - reach
    high = 1.0 if successes == n else middle + reach
    return Interval(low, high, "wilson")


def mean_interval(scores: Sequence[Any]) -> Interval | None:
    """The interval of the mean of bools, numbers or (predicted, expected) pairs.

    Of bools and pairs: Wilson's. Of numbers: a seeded BCa bootstrap (Efron, Better bootstrap
    confidence intervals, JASA 82, 1987) of up to `BOOTSTRAP_LIMIT` values, beyond that the normal
    approximation, mean ± z · s / √n. None for less than two numbers, for numbers that do not vary,
    and for numbers that are not finite: nothing is known of their spread.
    """
    if set(map(type, scores)) <= {bool}:
        return wilson(scores.count(True), len(scores))
    if any(isinstance(score, (tuple, list)) for score in scores):
        right = [bool(as_number(score)) for score in scores]
        return wilson(right.count(True), len(right))
    import numpy

    values = numpy.fromiter(map(as_number, scores), dtype=float, count=len(scores))
    if len(values) < 2 or not numpy.isfinite(values).all() or float(numpy.ptp(values)) == 0.0:
        return None
    if len(values) > BOOTSTRAP_LIMIT:
        mean = float(values.mean())
        margin = Z * float(values.std(ddof=1)) / math.sqrt(len(values))
        return Interval(mean - margin, mean + margin, "normal")
    from scipy.stats import bootstrap

    found = bootstrap(
        (values,),
        numpy.mean,
        confidence_level=LEVEL,
        n_resamples=RESAMPLES,
        # What bounds the memory: so many resamples are held at a time.
        batch=max(1, 500_000 // len(values)),
        method="BCa",
        vectorized=True,
        rng=numpy.random.default_rng(SEED),
    ).confidence_interval
    return _finite(found.low, found.high)


def resampled_interval(scores: Sequence[Any], calculate: Callable[[Sequence[Any]], Any]) -> Interval | None:
    """The interval of any metric: a seeded percentile bootstrap over the scores (Efron 1979).

    None beyond `CALLED_LIMIT` scores, since `calculate` is called for each of the resamples, and
    where it gives no finite number.
    """
    if not 2 <= len(scores) <= CALLED_LIMIT:
        return None
    import numpy
    from scipy.stats import bootstrap

    found = bootstrap(
        (numpy.arange(len(scores)),),
        lambda drawn: float(calculate([scores[index] for index in drawn])),
        confidence_level=LEVEL,
        n_resamples=CALLED_RESAMPLES,
        method="percentile",
        vectorized=False,
        rng=numpy.random.default_rng(SEED),
    ).confidence_interval
    return _finite(found.low, found.high)


def as_number(score: Any) -> float:
    """A score as a number: True is 1, and a pair (predicted, expected) is 1 if both are equal.

    Raises TypeError for anything else than a bool, a number or a pair; text is never read as a number.
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

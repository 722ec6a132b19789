"""The 95% interval of the sum of the values that were not drawn, from a random sample of a finite number of values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from doteval.metrics.intervals import Interval


def rest_interval(values: Sequence[float], left: int) -> Interval | None:
    """Return the interval of the sum of the `left` values that are not in the sample `values`.

    With n values drawn at random without replacement, of standard deviation s, and M values left, their sum is M times
    the mean of the sample, with the standard error M · s · √(1/n + 1/M). This is √(1 - f) · N · s / √n, with N = n + M
    and f = n/N, of W. G. Cochran, Sampling Techniques, 3rd edition, 1977, section 2.6: the sum of the sample is known,
    so that the whole differs from its estimate by what the rest does. The interval reaches as many of these errors
    below and above as `doteval.metrics.studentized.studentized_reach` says, since what rows use is skewed. Values are
    never negative, and neither is the lower end.

    The result is None if the spread is not known: for fewer than two values, and for equal ones.

    >>> found = rest_interval([1.0, 2.0, 4.0, 5.0], 96)
    >>> f"{found.low:.0f} {found.high:.0f} {found.method}"
    '0 914 bootstrap-t'
    """
    if len(values) < 2 or not left:
        return None
    import numpy

    from doteval.metrics.studentized import standard_error, studentized_reach

    sums, sizes = numpy.array(values, dtype=float), numpy.ones(len(values))
    mean, error = standard_error(sums, sizes)
    # Of equal values, rounding may leave an error that is no spread.
    if not error > 1e-12 * float(numpy.abs(sums).max()):
        return None
    below, above, method = studentized_reach(sums, sizes, mean, error)
    error_of_rest = left * error * math.sqrt(1 + len(values) / left)
    low, high = mean * left - below * error_of_rest, mean * left + above * error_of_rest
    return Interval(max(0.0, low), high, method) if math.isfinite(high) else None

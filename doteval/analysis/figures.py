"""Writes figures for people: counts, values of metrics, differences, intervals and money."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doteval.core.experiments import Counts, Evaluation
from doteval.metrics import Interval

# How the methods of intervals and tests are called in print; `--json` has the short names.
_METHODS = {
    "wilson": "Wilson",
    "bootstrap": "bootstrap",
    "bootstrap-t": "studentized bootstrap",
    "normal": "normal approximation",
    "bonett-price": "Bonett and Price",
    "clopper-pearson": "Clopper and Pearson",
    "t": "Student's t",
    "jackknife": "jackknife",
    "mcnemar-exact": "McNemar's exact test",
    "permutation": "permutation test",
    "permutation-exact": "exact permutation test",
    "permutation-normal": "permutation test, normal approximation",
}


def count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def share(counts: Counts) -> str:
    """Return the finished rows and the total as ``12/100``."""
    return f"{count(counts.finished)}/{count(counts.total)}"


def rows_of(counts: Counts) -> str:
    """Return the finished rows and the total as ``12/100 rows``."""
    return f"{share(counts)} {'row' if counts.total == 1 else 'rows'}"


def names(evaluations: Sequence[Evaluation]) -> dict[int, str]:
    """Return the name of each evaluation by its id, with its file where two evaluations share a name."""
    taken = Counter(evaluation.name for evaluation in evaluations)
    return {
        evaluation.id: evaluation.name if taken[evaluation.name] == 1 else evaluation.spec.nodeid
        for evaluation in evaluations
    }


def failures(counts: Counts) -> str:
    """Return the failed and the skipped rows as ``, 2 failed, 1 skipped``; empty without any."""
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{failed}, {counts.skipped:,} skipped" if counts.skipped else failed


def figure(value: float | None) -> str:
    """Return the value of a metric with three decimals, or one where it is 1,000 or more.

    A small one has two digits, since 0.0004 is not 0.000.

    >>> figure(0.75), figure(1234.56), figure(0.00042), figure(None)
    ('0.750', '1,234.6', '0.00042', '-')
    """
    return "-" if value is None or math.isnan(value) else _written(value)


def figure_beside(value: float, limit: float) -> str:
    """Return a value as `figure` does, with as many digits more as show on which side of a limit it is.

    >>> figure_beside(0.8, 0.9), figure_beside(0.8999, 0.9)
    ('0.800', '0.8999')
    """
    shown = figure(value)
    same_side = value == limit or ((value < limit) == (_read(shown) < limit) and _read(shown) != limit)
    return shown if same_side else repr(float(value))


def signed(number: float) -> str:
    """Return a difference as `figure` does, with its sign."""
    return _written(number, "+")


def interval(found: Interval | None) -> str:
    """Return the interval of a value as ``0.301 – 0.954``."""
    return "-" if found is None else f"{figure(found.low)} – {figure(found.high)}"


def difference_interval(found: Interval | None) -> str:
    """Return the interval of a difference as ``-0.071 to +0.014``, since a dash beside signs is hard to read."""
    return "-" if found is None else f"{signed(found.low)} to {signed(found.high)}"


def _written(number: float, sign: str = "") -> str:
    shown = f"{number:{sign}.3f}" if abs(number) < 1000 else f"{number:{sign},.1f}"
    return f"{number:{sign}.2g}" if number and _read(shown) == 0 else shown


def _read(shown: str) -> float:
    return float(shown.replace(",", ""))


def money(dollars: float | None) -> str:
    if dollars is None:
        return "-"
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"


def method_name(method: str | None) -> str:
    """The name of the method of an interval or a test, as people write it.

    >>> method_name("wilson"), method_name("mine")
    ('Wilson', 'mine')
    """
    return "-" if method is None else _METHODS.get(method, method)


def figures_of(stats: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The figures that a fixture's statistics hold, without zeros.

    >>> list(figures_of({"requests": 1200, "errors": 0, "cache": {"hits": 1}}))
    ['requests 1,200', 'cache hits 1']
    """
    # Direct values come before nested ones, so that totals come before details.
    for name, value in stats.items():
        label = f"{above}{name}".replace("_", " ")
        if isinstance(value, Mapping) or (value == 0 and not isinstance(value, bool)):
            continue
        if isinstance(value, float):
            yield f"{label} {value:,.4g}" if abs(value) < 1000 else f"{label} {value:,.0f}"
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{label} {value:,}"
        elif isinstance(value, list | tuple | set | frozenset):
            yield f"{label} {' '.join(map(str, value))}"
        else:
            yield f"{label} {value}"
    for name, value in stats.items():
        if isinstance(value, Mapping):
            yield from figures_of(value, f"{above}{name} ")

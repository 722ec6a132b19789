"""Counts values for charts, however many there are: histograms of times and tokens, and the course of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy
from numpy.typing import NDArray

from doteval.core.histogram import Latency

# Bars that a histogram shows, at most.
_BARS = 24
# Numbers of so few different values have a bar for each.
_VALUES_SHOWN = 12
# Parts of a timeline, at most; the first width of a part, in seconds.
_PARTS = 64
_FIRST_WIDTH = 1 / 16
# Worker processes that a timeline distinguishes; those that come later are counted in its totals only.
_WORKERS = 200


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges: `counts[i]` values are from `edges[i]` to `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ScoreDistribution:
    """How the values of a score are distributed.

    n: the number of values; `others` of them are of no kind that is shown.
    values: the values with their counts, where they are few: true and false, labels, some numbers.
    histogram: of numbers, where they are many.
    least, greatest: of the numbers; None without any.
    """

    name: str
    n: int
    values: tuple[tuple[str, int], ...] = ()
    histogram: Histogram | None = None
    others: int = 0
    least: float | None = None
    greatest: float | None = None


class NumberCounts:
    """Counts numbers between two bounds, which must be known, part by part.

    >>> counts = NumberCounts(0.0, 1.0)
    >>> counts.add([0.0, 1.0, 1.0])
    >>> counts.values
    (('0', 1), ('1', 2))
    """

    def __init__(self, least: float, greatest: float) -> None:
        # Two finite numbers may be further apart than the greatest number.
        self._edges = numpy.linspace(least, greatest, _BARS + 1) if greatest - least < numpy.inf else None
        self._counts = numpy.zeros(_BARS, dtype=numpy.int64)
        self._values: Counter[float] | None = Counter()

    def add(self, numbers: Sequence[float]) -> None:
        """Count numbers."""
        found = numpy.asarray(numbers, dtype=numpy.float64)
        if self._values is not None:
            distinct, counts = numpy.unique(found, return_counts=True)
            if len(distinct) <= _VALUES_SHOWN:
                self._values.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))
            if len(distinct) > _VALUES_SHOWN or len(self._values) > _VALUES_SHOWN:
                self._values = None
        if self._edges is not None:
            # Rounding may make the edges too near to each other for numpy.histogram.
            places = numpy.searchsorted(self._edges, found, side="right") - 1
            self._counts += numpy.bincount(numpy.clip(places, 0, _BARS - 1), minlength=_BARS)

    @property
    def values(self) -> tuple[tuple[str, int], ...]:
        """The distinct numbers with their counts, none if they are many."""
        return (
            ()
            if self._values is None
            else tuple((f"{number:.4g}", self._values[number]) for number in sorted(self._values))
        )

    @property
    def histogram(self) -> Histogram | None:
        """The numbers in bars, None if they are few or too far apart."""
        if self._values is not None or self._edges is None:
            return None
        return Histogram(tuple(self._edges.tolist()), tuple(self._counts.tolist()))


class LogCounts:
    """Counts positive numbers in the buckets of `doteval.core.histogram.Latency`, whose first ends at `smallest`.

    >>> counts = LogCounts(1.0)
    >>> counts.add([100, 100, 900])
    >>> f"{counts.quantile(0.5):.0f}", counts.total
    ('103', 3)
    """

    def __init__(self, smallest: float) -> None:
        self._smallest = smallest
        self._counts: Counter[int] = Counter()

    @classmethod
    def of_latency(cls, latency: Latency) -> LogCounts:
        """The counts of a histogram of reply times."""
        found = cls(0.001)
        found._counts.update(dict(latency.counts))
        return found

    def add(self, values: Sequence[float]) -> None:
        """Count values; those below the smallest are in the first bucket."""
        found = numpy.maximum(numpy.asarray(values, dtype=numpy.float64), self._smallest)
        buckets = numpy.ceil(8 * numpy.log2(found / self._smallest)).astype(numpy.int64)
        distinct, counts = numpy.unique(buckets, return_counts=True)
        self._counts.update(dict(zip(distinct.tolist(), counts.tolist(), strict=True)))

    @property
    def total(self) -> int:
        """The number of values."""
        return self._counts.total()

    def quantile(self, share: float) -> float | None:
        """The value that `share` of the values do not exceed, within 4.5%; None without any."""
        found = Latency.from_counts(self._counts).quantile(share)
        return None if found is None else found / 0.001 * self._smallest

    @property
    def histogram(self) -> Histogram | None:
        """The values in at most 24 bars of equal ratio, None without any."""
        if not self._counts:
            return None
        low, high = min(self._counts), max(self._counts)
        together = next(size for size in (1, 2, 4, 8, 16, 32, 64, 128) if (high - low) // size + 1 < _BARS)
        first, last = low // together, high // together
        counts = Counter[int]()
        for bucket, count in self._counts.items():
            counts[bucket // together] += count
        # Bucket b ends at smallest * 2^(b / 8).
        edges = [self._smallest * 2.0 ** ((place * together - 1) / 8) for place in range(first, last + 2)]
        return Histogram(tuple(edges), tuple(counts[place] for place in range(first, last + 1)))


@dataclass(frozen=True, slots=True)
class Timeline:
    """The rows that ended in each part of a run.

    start: when the first part begins, in seconds since the epoch; `width` is the length of a part in seconds.
    done, failed: how many rows ended in each part.
    workers: how many rows of each worker process ended in each part, the processes in the order of their ids; those of
        no worker process, as of plain pytest, have the id None.
    more_workers: whether there were more worker processes than it distinguishes.
    """

    start: float
    width: float
    done: tuple[int, ...]
    failed: tuple[int, ...]
    workers: tuple[tuple[int | None, tuple[int, ...]], ...] = field(repr=False)
    more_workers: bool

    @property
    def seconds(self) -> float:
        """How long it took, whole parts."""
        return self.width * len(self.done)


class TimelineCounts:
    """Counts the ends of rows in parts of a run that grow with it, so that there are never more than 64.

    >>> counts = TimelineCounts()
    >>> counts.add([100.0, 100.2, 107.0], [False, True, False], [1, 1, 2])
    >>> found = counts.timeline()
    >>> sum(found.done), sum(found.failed), len(found.done) <= 64
    (2, 1, True)
    """

    def __init__(self) -> None:
        self._width = _FIRST_WIDTH
        # The numbers of rows, by worker process, whether they failed, and part.
        self._counts: Counter[tuple[int | None, bool, int]] = Counter()
        self._workers: set[int | None] = set()
        self._more_workers = False

    def add(self, ended: Sequence[float], failed: Sequence[bool], workers: Sequence[int | None]) -> None:
        """Count rows, given by the second in which they ended and by their worker process."""
        if not len(ended):
            return
        parts = numpy.floor(numpy.asarray(ended, dtype=numpy.float64) / self._width).astype(numpy.int64)
        kinds = numpy.fromiter((-1 if each is None else each for each in workers), dtype=numpy.int64, count=len(ended))
        keys = numpy.stack((kinds, numpy.asarray(failed, dtype=numpy.int64), parts), axis=1)
        distinct, counts = _unique_rows(keys, self._fit(parts))
        for (worker, is_failed, part), count in zip(distinct.tolist(), counts.tolist(), strict=True):
            self._counts[self._known(worker), bool(is_failed), part] += count

    def timeline(self) -> Timeline | None:
        """The counts so far, None without any."""
        if not self._counts:
            return None
        parts = [part for _, _, part in self._counts]
        first, number = min(parts), max(parts) - min(parts) + 1
        totals = {False: [0] * number, True: [0] * number}
        by_worker: dict[int | None, list[int]] = {worker: [0] * number for worker in sorted(self._workers, key=_place)}
        for (worker, is_failed, part), count in self._counts.items():
            totals[is_failed][part - first] += count
            if worker in by_worker:
                by_worker[worker][part - first] += count
        return Timeline(
            first * self._width,
            self._width,
            tuple(totals[False]),
            tuple(totals[True]),
            tuple((worker, tuple(counts)) for worker, counts in by_worker.items()),
            self._more_workers,
        )

    def _fit(self, parts: NDArray[numpy.int64]) -> int:
        """Double the width of a part until there are few enough with these; returns how often."""
        known = [part for _, _, part in self._counts]
        low, high = min([int(parts.min()), *known]), max([int(parts.max()), *known])
        times = 0
        while (high >> times) - (low >> times) >= _PARTS:
            times += 1
        if times:
            self._width *= 2**times
            counted = Counter[tuple[int | None, bool, int]]()
            for (worker, is_failed, part), count in self._counts.items():
                counted[worker, is_failed, part >> times] += count
            self._counts = counted
        return times

    def _known(self, worker: int) -> int | None:
        found = None if worker < 0 else worker
        if found not in self._workers:
            if len(self._workers) >= _WORKERS:
                self._more_workers = True
                # Counted in the totals, under an id that no worker process has.
                return -1
            self._workers.add(found)
        return found


def _place(worker: int | None) -> int:
    return -1 if worker is None else worker


def _unique_rows(keys: NDArray[numpy.int64], halved: int) -> tuple[NDArray[numpy.int64], NDArray[Any]]:
    keys[:, 2] >>= halved
    return numpy.unique(keys, axis=0, return_counts=True)

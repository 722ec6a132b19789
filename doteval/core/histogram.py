"""Histograms of reply times that can be added up over rows, worker processes and machines.

Buckets are spaced logarithmically, eight to a doubling, from one millisecond up. So a percentile is exact within 4.5 %,
whatever its size, and the percentiles of a sum are those of all its replies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SMALLEST = 0.001
_PER_DOUBLING = 8

QUANTILES = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
"""The percentiles that are shown."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Counts replies by bucket.

    Bucket ``b`` ends at ``0.001 · 2^(b/8)`` seconds; faster replies are in bucket 0.

    >>> round((Latency.of(0.5) + Latency.of(2.0)).quantile(0.5), 1)
    0.5
    """

    counts: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, seconds: float) -> Latency:
        """The histogram of one reply."""
        bucket = math.ceil(_PER_DOUBLING * math.log2(seconds / _SMALLEST)) if seconds > _SMALLEST else 0
        return cls(((bucket, 1),))

    @classmethod
    def from_counts(cls, counts: Mapping[int, int]) -> Latency:
        return cls(tuple(sorted((bucket, count) for bucket, count in counts.items() if count)))

    @classmethod
    def from_text(cls, text: str) -> Latency:
        """The histogram from the text that `to_text` wrote. Raises ValueError for anything else."""
        return cls(tuple((int(bucket), int(count)) for bucket, _, count in (p.partition(":") for p in text.split())))

    def to_text(self) -> str:
        """The text ``bucket:count bucket:count``. Most rows have one reply, so the store holds few different texts."""
        return " ".join([f"{bucket}:{count}" for bucket, count in self.counts])

    def __add__(self, other: Latency) -> Latency:
        if not self.counts or not other.counts:
            return self if self.counts else other
        return merged([(self, 1), (other, 1)])

    @property
    def total(self) -> int:
        """The number of replies."""
        return sum(count for _, count in self.counts)

    def quantile(self, share: float) -> float | None:
        """The seconds within which `share` (0 to 1) of the replies came; None without replies.

        It is the nearest-rank quantile, given as the geometric middle of its bucket.
        """
        if not self.counts:
            return None
        rank = max(1, math.ceil(share * self.total))
        for bucket, count in self.counts:
            rank -= count
            if rank <= 0:
                return _SMALLEST * math.exp2((bucket - 0.5) / _PER_DOUBLING)
        raise AssertionError("unreachable")


NO_LATENCY = Latency()


def merged(parts: Iterable[tuple[Latency, int]]) -> Latency:
    """The sum of histograms, each multiplied by its number."""
    counts: dict[int, int] = {}
    for latency, times in parts:
        for bucket, count in latency.counts:
            counts[bucket] = counts.get(bucket, 0) + count * times
    return Latency.from_counts(counts)

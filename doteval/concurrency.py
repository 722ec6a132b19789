"""The strategies that `@foreach(concurrency=)` takes: how many rows of an evaluation are in flight at once.

A number is enough in most cases: ``concurrency=20`` is ``SlidingWindow(20)``. By default an async evaluation has ten
rows in flight, and a sync one runs one row after the other. All numbers are per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from doteval.errors import UsageError

__all__ = [
    "Adaptive",
    "AsyncSequential",
    "Batch",
    "Sequential",
    "SlidingWindow",
    "Strategy",
]

# Rows in flight of an async evaluation that does not set its concurrency.
ASYNC_CONCURRENCY = 10


@dataclass(frozen=True, slots=True)
class Sequential:
    """Runs one row after the other.

    >>> from doteval import foreach
    >>> @foreach("text", ["a", "b"], concurrency=Sequential())
    ... def eval_text(text): ...
    """


@dataclass(frozen=True, slots=True)
class AsyncSequential:
    """Runs one row after the other. The same as `Sequential`, for files that name it.

    >>> as_strategy(AsyncSequential())
    AsyncSequential()
    """


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Runs up to `max_concurrency` rows at once; the next one begins as one ends.

    Sync evaluations run in as many threads. Raises UsageError if `max_concurrency` is below 1.

    >>> SlidingWindow(20).max_concurrency
    20
    """

    max_concurrency: int = ASYNC_CONCURRENCY

    def __post_init__(self) -> None:
        _at_least("max_concurrency", self.max_concurrency, 1)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Runs as many rows at once as make the evaluation faster.

    The number grows by half as long as that brings more rows a second, stays where it does not, and is reduced when
    connections fail or a rate limit is hit.

    `adaptation_interval`: seconds between two decisions. `increase_threshold`: the number grows if the rate is
    more than this many times the last one. `decrease_threshold`: it shrinks if the rate is less than this many times
    the last one. `stability_window`: decisions without a change after which it grows once more.
    `error_backoff_factor`: multiplies the number when a connection or server has failed. `throughput_window`: rows that
    a rate is measured over, at least.

    Raises UsageError if the numbers contradict each other or are out of range.

    >>> Adaptive(min_concurrency=2, max_concurrency=50).initial_concurrency
    5
    """

    initial_concurrency: int = 5
    min_concurrency: int = 1
    max_concurrency: int = 100
    adaptation_interval: float = 2.0
    throughput_window: int = 20
    increase_threshold: float = 1.05
    decrease_threshold: float = 0.90
    stability_window: int = 3
    error_backoff_factor: float = 0.5

    def __post_init__(self) -> None:
        _at_least("min_concurrency", self.min_concurrency, 1)
        _at_least("max_concurrency", self.max_concurrency, self.min_concurrency)
        _at_least("throughput_window", self.throughput_window, 1)
        _at_least("stability_window", self.stability_window, 1)
        if not self.min_concurrency <= self.initial_concurrency <= self.max_concurrency:
            raise UsageError(
                f"initial_concurrency is {self.initial_concurrency}, which is not between min_concurrency "
                f"({self.min_concurrency}) and max_concurrency ({self.max_concurrency})"
            )
        if not 0 < self.error_backoff_factor < 1:
            raise UsageError(f"error_backoff_factor must be between 0 and 1, not {self.error_backoff_factor}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Runs groups of `batch_size` rows; a group begins when the one before has ended.

    The rows of a group run at once if the evaluation is async, one after the other if it is sync. For evaluations
    that take lists of rows see `doteval.batch`. Raises UsageError if `batch_size` is below 1.

    >>> Batch(50).batch_size
    50
    """

    batch_size: int = 10

    def __post_init__(self) -> None:
        _at_least("batch_size", self.batch_size, 1)


Strategy: TypeAlias = Sequential | AsyncSequential | SlidingWindow | Adaptive | Batch
"""Any of the strategies."""


def as_strategy(given: object) -> Strategy:
    """The strategy for the value of `concurrency=`: a number is a `SlidingWindow`.

    Raises UsageError for anything that is neither a number nor a strategy.

    >>> as_strategy(20)
    SlidingWindow(max_concurrency=20)
    """
    if isinstance(given, Strategy):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return SlidingWindow(given)
    raise UsageError(
        f"concurrency is a {type(given).__name__}, which is not a concurrency strategy",
        remedy="Give a number, or one of doteval.concurrency: Sequential(), SlidingWindow(20), Adaptive(), Batch(50).",
    )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")

"""How many rows of an evaluation are in flight at once: the strategies that `@foreach(concurrency=)` takes.

A number is enough in most cases: ``concurrency=20`` is ``SlidingWindow(20)``. Where nothing is said, an async
evaluation has ten rows in flight in each process, and a sync one runs one row after the other. All of
them count per process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from doteval.errors import UsageError

# Rows in flight of an async evaluation where nothing else is said.
ASYNC_CONCURRENCY = 10


@dataclass(frozen=True, slots=True)
class Sequential:
    """One row after the other."""


@dataclass(frozen=True, slots=True)
class AsyncSequential:
    """One row after the other, for async evaluations. The same as `Sequential`."""


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """Up to `max_concurrency` rows at once; the next begins as one ends.

    Sync evaluations run in as many threads. Raises UsageError if it is below 1.
    """

    max_concurrency: int = ASYNC_CONCURRENCY

    def __post_init__(self) -> None:
        _at_least("max_concurrency", self.max_concurrency, 1)


@dataclass(frozen=True, slots=True)
class Adaptive:
    """As many rows at once as make the evaluation faster.

    The number grows by half as long as that brings more rows a second, holds where it does not, and is cut
    when connections fail or a rate limit is hit.

    `adaptation_interval`: seconds between two decisions. `increase_threshold`: the rate must be this many
    times the one before to grow further. `decrease_threshold`: below this many times, it shrinks again.
    `stability_window`: decisions without a change after which it tries to grow once more.
    `error_backoff_factor`: what it is multiplied with when the infrastructure failed. `throughput_window`:
    rows that a rate is taken over, at least.

    Raises UsageError for numbers that make no sense.
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
    """Groups of `batch_size` rows: a group begins when the last one has ended.

    The rows of a group run at once if the evaluation is async, one after the other if it is sync. An
    evaluation that takes lists is something else: see `doteval.batch`. Raises UsageError for a size below 1.
    """

    batch_size: int = 10

    def __post_init__(self) -> None:
        _at_least("batch_size", self.batch_size, 1)


Strategy: TypeAlias = Sequential | AsyncSequential | SlidingWindow | Adaptive | Batch


def as_strategy(given: object) -> Strategy:
    """What `concurrency=` was given, as a strategy: a number is a `SlidingWindow`.

    Raises UsageError for anything that is none.
    """
    if isinstance(given, Strategy):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return SlidingWindow(given)
    raise UsageError(
        f"concurrency is a {type(given).__name__}, which is no concurrency strategy",
        remedy="Give a number, or one of doteval.concurrency: Sequential(), SlidingWindow(20), Adaptive(), Batch(50).",
    )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")

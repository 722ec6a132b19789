"""Windows decide how many calls may be in flight now, one class for each concurrency strategy.

A window belongs to the thread that begins the calls, which asks it before each call and reports each end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from doteval.concurrency import ASYNC_CONCURRENCY, Adaptive, Batch, SlidingWindow, as_strategy
from doteval.core import clocks


class Window(Protocol):
    """Limits the calls in flight: to `size` now, and to `most` at any time."""

    @property
    def size(self) -> int: ...

    @property
    def most(self) -> int: ...

    def admits(self, in_flight: int) -> bool:
        """Whether one more call may begin while `in_flight` calls are in flight."""

    def begun(self) -> None:
        """Note that a call has begun."""

    def ended(self, *, infrastructure_failed: bool) -> None:
        """Note that a call has ended, and whether a connection or server failed it."""


class FixedWindow:
    """Admits the same number of calls all the time."""

    def __init__(self, size: int) -> None:
        self.size = self.most = size

    def admits(self, in_flight: int) -> bool:
        return in_flight < self.size

    def begun(self) -> None:
        pass

    def ended(self, *, infrastructure_failed: bool) -> None:
        pass


class GroupWindow:
    """Admits `size` calls, and then none before all of them have ended."""

    def __init__(self, size: int) -> None:
        self.size = self.most = size
        self._begun = 0

    def admits(self, in_flight: int) -> bool:
        if self._begun == self.size and not in_flight:
            self._begun = 0
        return self._begun < self.size

    def begun(self) -> None:
        self._begun += 1

    def ended(self, *, infrastructure_failed: bool) -> None:
        pass


class AdaptiveRowWindow:
    """Finds the number of calls that gives the most calls a second, by hill climbing.

    The parameters are those of `doteval.concurrency.Adaptive`.
    """

    def __init__(self, strategy: Adaptive, *, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._strategy = strategy
        self._clock = clock
        self.size = strategy.initial_concurrency
        self.most = strategy.max_concurrency
        self._since = clock()
        self._ended = 0
        self._failed = False
        self._rate: float | None = None
        self._held = 0

    def admits(self, in_flight: int) -> bool:
        return in_flight < self.size

    def begun(self) -> None:
        pass

    def ended(self, *, infrastructure_failed: bool) -> None:
        self._ended += 1
        self._failed = self._failed or infrastructure_failed
        # Calls that were in flight before the last change say nothing of it, so they must have ended first.
        if self._ended < max(self.size, self._strategy.throughput_window) and not self._failed:
            return
        now = self._clock()
        if now - self._since >= self._strategy.adaptation_interval:
            self._decide(self._ended / (now - self._since))
            self._since, self._ended, self._failed = now, 0, False

    def _decide(self, rate: float) -> None:
        strategy, before = self._strategy, self._rate
        self._rate = rate
        if self._failed:
            # A rate with failures cannot be compared with the next one.
            self._rate = None
            self._resize(math.floor(self.size * strategy.error_backoff_factor))
        elif before is None or rate > before * strategy.increase_threshold or self._held >= strategy.stability_window:
            self._resize(math.ceil(self.size * 1.5))
        elif rate < before * strategy.decrease_threshold:
            self._resize(math.floor(self.size / 1.5))
        else:
            self._held += 1

    def _resize(self, size: int) -> None:
        self._held = 0
        self.size = max(self._strategy.min_concurrency, min(size, self._strategy.max_concurrency))


def window_for(own: object, from_command: int | Adaptive | None, *, is_async: bool) -> Window:
    """The window of an evaluation.

    `own`: the concurrency of its decorator. `from_command`: that of the command, used if `own` is None. If it is
    `Adaptive`, sync evaluations still run one row at a time, since their code may not be thread-safe.

    Raises UsageError if `own` is not a strategy.

    >>> window_for(20, None, is_async=True).size
    20
    """
    if own is not None:
        strategy = as_strategy(own)
        if isinstance(strategy, Adaptive):
            return AdaptiveRowWindow(strategy)
        if isinstance(strategy, SlidingWindow):
            return FixedWindow(strategy.max_concurrency)
        if isinstance(strategy, Batch) and is_async:
            return GroupWindow(strategy.batch_size)
        return FixedWindow(1)
    if isinstance(from_command, int):
        return FixedWindow(from_command)
    if not is_async:
        return FixedWindow(1)
    return FixedWindow(ASYNC_CONCURRENCY) if from_command is None else AdaptiveRowWindow(from_command)

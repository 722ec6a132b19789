"""Who pays: usage that happens while a row runs is added to that row.

The row runner opens a meter around each row; clients add to the meter of the code that calls them.
A context variable carries it, so that rows that overlap on one event loop, or run in threads, keep
their usage apart.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, TypeVar

from doteval.core.client_config import CacheChoice
from doteval.core.fast_dataclass import row_value
from doteval.core.results import Usage

Returned = TypeVar("Returned")


@row_value
class Place:
    """Which row is running: of which evaluation (any name that all worker processes use), its index and sample."""

    evaluation: str
    index: int
    sample: int = 0


_set_ups = itertools.count()


def set_up_place(evaluation: str) -> Place:
    """A place for what is used to set fixtures up that an evaluation's rows share: no row, and no two the same."""
    return Place(evaluation, -1, next(_set_ups))


class Meter:
    """Adds up usage by model. Safe to use from threads that a row starts.

    `place` is the row that it is for, None if nobody said so. `cache` is what the row's submission says of the
    cache of replies, None for nothing.
    """

    def __init__(self, place: Place | None = None, cache: CacheChoice | None = None) -> None:
        self.place = place
        self.cache = cache
        self._lock = threading.Lock()
        self._by_model: dict[str, Usage] = {}

    def add(self, usage: Usage) -> None:
        with self._lock:
            known = self._by_model.get(usage.model)
            self._by_model[usage.model] = usage if known is None else known + usage
        if _observer is not None and self.place is not None:
            _observer(self.place, usage)

    def reading(self) -> tuple[Usage, ...]:
        """What has been added so far, one entry a model."""
        with self._lock:
            return tuple(self._by_model.values())


_current: ContextVar[Meter | None] = ContextVar("doteval_meter", default=None)


_observer: Callable[[Place, Usage], None] | None = None


def observe_usage(observer: Callable[[Place, Usage], None] | None) -> None:
    """Have all usage of rows in this process told to `observer` at once, from any thread. None: no more."""
    global _observer
    _observer = observer


def current_meter() -> Meter | None:
    """The meter of the row that is running, None outside of rows."""
    return _current.get()


class metering:  # noqa: N801 (it reads as the function that it could be, were it not for every row)
    """Have a meter, a new one unless one is given, for what is called inside the block."""

    __slots__ = ("_meter", "_token")

    def __init__(self, meter: Meter | None = None) -> None:
        self._meter = Meter() if meter is None else meter

    def __enter__(self) -> Meter:
        self._token = _current.set(self._meter)
        return self._meter

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


def together(usages: Iterable[Usage]) -> tuple[Usage, ...]:
    """The sums of usages, one a model."""
    meter = Meter()
    for usage in usages:
        meter.add(usage)
    return meter.reading()


def current_place() -> Place | None:
    """The row that is running, None outside of rows."""
    meter = _current.get()
    return None if meter is None else meter.place


def placed(
    function: Callable[..., Returned], place: Place, cache: CacheChoice | None = None
) -> Callable[..., Returned]:
    """A function that tells the meter it is called under which row it is for, and then calls `function`."""

    def call(**arguments: Any) -> Returned:
        meter = _current.get()
        if meter is not None:
            meter.place, meter.cache = place, cache
        return function(**arguments)

    return call

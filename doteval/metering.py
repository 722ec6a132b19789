"""Who pays: usage that happens while a row runs is added to that row.

The row runner opens a meter around each row; clients add to the meter of the code that calls them.
A context variable carries it, so that rows that overlap on one event loop, or run in threads, keep
their usage apart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from doteval.results import Usage


class Meter:
    """Adds up usage by model. Safe to use from threads that a row starts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_model: dict[str, Usage] = {}

    def add(self, usage: Usage) -> None:
        with self._lock:
            known = self._by_model.get(usage.model)
            self._by_model[usage.model] = usage if known is None else known + usage

    def reading(self) -> tuple[Usage, ...]:
        """What has been added so far, one entry a model."""
        with self._lock:
            return tuple(self._by_model.values())


_current: ContextVar[Meter | None] = ContextVar("doteval_meter", default=None)


def current_meter() -> Meter | None:
    """The meter of the row that is running, None outside of rows."""
    return _current.get()


@contextmanager
def metering() -> Iterator[Meter]:
    """Open a meter for what is called inside the block."""
    meter = Meter()
    token = _current.set(meter)
    try:
        yield meter
    finally:
        _current.reset(token)

"""Stock: the rows that a worker process has in hand, and whether it should ask for another row task.

What is in one process's hands no other can run, and is run again if it dies: so it asks for the next row task
only when its rows would soon run out. RabbitMQ sends messages without being asked; with Redis each is asked for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

# Rows for so many seconds are in hand, by how fast they ended lately: many times what asking for a row task takes.
_SECONDS = 0.25
# And so many for each one that runs.
_EACH = 2


def _nobody() -> None:
    """Nobody waits to be woken."""


class Lot:
    """The rows of one row task. May be used by any thread."""

    def __init__(self, stock: Stock, rows: int) -> None:
        self._stock = stock
        self._rows = rows

    def holds(self, rows: int) -> None:
        """So many they are, it turns out."""
        self._stock.add(rows - self._rows)
        self._rows = rows

    def ended(self) -> None:
        """One of them has ended."""
        self._rows -= 1
        self._stock.take()


class Stock:
    """`wake` is called, on any thread, when more is wanted after all. `clock` gives seconds that only ever grow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake: Callable[[], object] = _nobody
        self._clock = clock
        self._lock = threading.Lock()
        self._rows = 0
        self._at_once = 1
        self._enough = 0
        self._refused = False
        # When ended rows were last looked at, how many have ended since, and how many a second did before.
        self._since = clock()
        self._ended = 0
        self._rate = 0.0

    @contextlib.contextmanager
    def lot(self, rows: int) -> Iterator[Lot]:
        """Have the rows of a row task in hand, `rows` of them at most."""
        lot = Lot(self, rows)
        self.add(rows)
        try:
            yield lot
        finally:
            # Those that never began.
            lot.holds(0)

    def expect(self, at_once: int) -> None:
        """So many rows may run at the same time from now on."""
        with self._lock:
            self._at_once = at_once
            self._enough = max(_EACH * at_once, self._enough)
            wake = self._is_time()
        if wake:
            self.wake()

    def wants_more(self) -> bool:
        """Whether to ask for another row task. If not, `wake` is called when it is time."""
        with self._lock:
            seconds = self._clock() - self._since
            if seconds >= _SECONDS:
                self._rate, self._since, self._ended = self._ended / seconds, self._since + seconds, 0
            self._enough = max(_EACH * self._at_once, int(self._rate * _SECONDS))
            self._refused = self._rows >= self._enough
            return not self._refused

    def add(self, rows: int) -> None:
        """Count so many rows more, or less."""
        with self._lock:
            self._rows += rows
            wake = self._is_time()
        if wake:
            self.wake()

    def take(self) -> None:
        """Count one row less, which has ended."""
        with self._lock:
            self._rows -= 1
            self._ended += 1
            wake = self._is_time()
        if wake:
            self.wake()

    def _is_time(self) -> bool:
        if not self._refused or self._rows >= self._enough:
            return False
        self._refused = False
        return True

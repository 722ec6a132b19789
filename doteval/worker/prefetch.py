"""Prefetch: the rows that a worker process has in hand, and whether it should ask for another row task.

What is in one process's hands no other can run, and is run again if it dies: so it asks for the next row task
only when its rows would soon run out. RabbitMQ sends messages without being asked; with Redis each is asked for.

Only rows of the evaluation that runs count. Those of others wait for its turn to end, and would they keep its own
out, turns would be short and set-ups many.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

# Rows for so many seconds are in hand, by how fast they ended lately: many times what asking for a row task takes.
_SECONDS = 0.25
# And so many for each one that runs.
_EACH = 2


def _nobody() -> None:
    """Nobody waits to be woken."""


class Lot:
    """The rows of one row task. May be used by any thread."""

    def __init__(self, prefetch: Prefetch, evaluation: str, rows: int) -> None:
        self._prefetch = prefetch
        self._evaluation = evaluation
        self._rows = 0
        self.holds(rows)

    def holds(self, rows: int, at_once: int | None = None) -> None:
        """So many they are, it turns out. `at_once` says how many of their evaluation may run at the same time now."""
        self._prefetch.add(self._evaluation, rows - self._rows, at_once)
        self._rows = rows

    def ended(self) -> bool:
        """One of them has ended. Returns whether it was the last one."""
        self._rows -= 1
        self._prefetch.take(self._evaluation)
        return self._rows <= 0


class Prefetch:
    """`wake` is called, on any thread, when more is wanted after all. `clock` gives seconds that only ever grow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.wake: Callable[[], object] = _nobody
        self._clock = clock
        self._lock = threading.Lock()
        # By evaluation: rows in hand, and rows that may run at the same time.
        self._rows: Counter[str] = Counter()
        self._at_once: dict[str, int] = {}
        # The one that runs: of which a row was the last to end, or to come before any had ended.
        self._running = ""
        self._refused = False
        # When ended rows were last looked at, how many have ended since, and how many a second did before.
        self._since = clock()
        self._ended = 0
        self._rate = 0.0

    @contextlib.contextmanager
    def lot(self, evaluation: str, rows: int) -> Iterator[Lot]:
        """Have the rows of a row task in hand, `rows` of them at most."""
        lot = Lot(self, evaluation, rows)
        try:
            yield lot
        finally:
            # Those that never began.
            lot.holds(0)

    def wants_more(self) -> bool:
        """Whether to ask for another row task. If not, `wake` is called when it is time."""
        with self._lock:
            seconds = self._clock() - self._since
            if seconds >= _SECONDS:
                self._rate, self._since, self._ended = self._ended / seconds, self._since + seconds, 0
            self._refused = self._is_enough()
            return not self._refused

    def add(self, evaluation: str, rows: int, at_once: int | None = None) -> None:
        """Count so many rows of an evaluation more, or less."""
        with self._lock:
            self._rows[evaluation] += rows
            if at_once is not None:
                self._at_once[evaluation] = at_once
            if not self._rows[self._running]:
                self._running = evaluation
            if not self._rows[evaluation]:
                # Nothing is kept of evaluations that are over.
                del self._rows[evaluation]
                self._at_once.pop(evaluation, None)
            wake = self._is_time()
        if wake:
            self.wake()

    def take(self, evaluation: str) -> None:
        """Count one row less of an evaluation, which has ended."""
        with self._lock:
            self._running = evaluation
            self._rows[evaluation] -= 1
            self._ended += 1
            wake = self._is_time()
        if wake:
            self.wake()

    def _is_enough(self) -> bool:
        at_once = self._at_once.get(self._running, 1)
        return self._rows[self._running] >= max(_EACH * at_once, int(self._rate * _SECONDS))

    def _is_time(self) -> bool:
        if not self._refused or self._is_enough():
            return False
        self._refused = False
        return True

"""Decides when to fetch the next row task, so that a process holds as few rows as keep it busy.

No other process can run the rows that one process holds, and they run again if it dies. So a process fetches the next
row task only when its rows would soon run out. That is possible with a pull-based broker (Redis); RabbitMQ sends
messages unasked.

Only rows of the evaluation that runs now count. Rows of other evaluations wait until its time slice ends. If they
counted, they would keep out its own rows, and the process would change evaluations, and set up fixtures, more often.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator

# A process holds so many rows for each one that runs.
_ROWS_PER_RUNNING_ROW = 2


def _wake_nothing() -> None:
    """Do nothing: the default of `Prefetch.wake`."""


class PrefetchedRows:
    """The rows of one row task that have not completed. Safe to use from any thread."""

    def __init__(self, prefetch: Prefetch, evaluation: str, rows: int) -> None:
        self._prefetch = prefetch
        self._evaluation = evaluation
        self._rows = 0
        self.resize(rows)

    def resize(self, rows: int, at_once: int | None = None) -> None:
        """Set the number of rows, once it is known. `at_once`: rows of the evaluation that may run at the same time."""
        self._prefetch.add(self._evaluation, rows - self._rows, at_once)
        self._rows = rows

    def give_back(self, rows: int) -> None:
        """Count rows no more that other processes run."""
        self.resize(self._rows - rows)

    def row_completed(self) -> None:
        """Count a row that has completed."""
        self._rows -= 1
        self._prefetch.remove(self._evaluation)


class Prefetch:
    """Counts the rows that this process holds. Safe to use from any thread.

    wake: called, on any thread, when another row task is wanted after `wants_more` has refused one.

    >>> prefetch = Prefetch()
    >>> with prefetch.rows("evaluation", 2) as rows:
    ...     rows.resize(2, at_once=1)
    ...     prefetch.wants_more()
    False
    >>> prefetch.wants_more()
    True
    """

    def __init__(self) -> None:
        self.wake: Callable[[], object] = _wake_nothing
        self._lock = threading.Lock()
        # By evaluation: rows held, and rows that may run at the same time.
        self._rows: Counter[str] = Counter()
        self._at_once: dict[str, int] = {}
        # The evaluation that runs: that of the last row that completed, or else of the first rows that came.
        self._running = ""
        self._refused = False
        self._paused = False

    @contextlib.contextmanager
    def rows(self, evaluation: str, rows: int) -> Iterator[PrefetchedRows]:
        """Hold the rows of a row task inside the block; `rows` is their number at most."""
        prefetched = PrefetchedRows(self, evaluation, rows)
        try:
            yield prefetched
        finally:
            # Rows that never began.
            prefetched.resize(0)
            self._go_on()

    def wants_more(self) -> bool:
        """Whether to fetch another row task now. If not, `wake` is called when it is time."""
        with self._lock:
            self._refused = self._has_enough()
            return not self._refused

    def pause(self) -> None:
        """Want no further row task until a row has completed, or a row task has ended: all slots are occupied."""
        with self._lock:
            self._paused = True

    def add(self, evaluation: str, rows: int, at_once: int | None = None) -> None:
        """Count `rows` more rows of an evaluation, or fewer if negative."""
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

    def remove(self, evaluation: str) -> None:
        """Count a row of an evaluation that has completed."""
        with self._lock:
            self._running = evaluation
            self._rows[evaluation] -= 1
            self._paused = False
            wake = self._is_time()
        if wake:
            self.wake()

    def _go_on(self) -> None:
        with self._lock:
            self._paused = False
            wake = self._is_time()
        if wake:
            self.wake()

    def _has_enough(self) -> bool:
        return self._paused or self._rows[self._running] >= _ROWS_PER_RUNNING_ROW * self._at_once.get(self._running, 1)

    def _is_time(self) -> bool:
        if not self._refused or self._has_enough():
            return False
        self._refused = False
        return True

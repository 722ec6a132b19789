"""Stuck rows: calls that are over their time in worker processes that cannot end them.

A process ends its own rows, as long as they come back to Python now and then. What is stuck in C code does not (a
lock, a driver, a regular expression that backtracks for ever), and if it keeps Python's lock, no thread of its process
can do anything about it. From outside it can be seen, in the flight log, and the process can be killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from doteval.supervision.inflight_journal import InflightRow, read_inflight_journal

# Seconds for which a call must have been seen to be over its time: its own process may be ending it, and one that
# was stopped together with its machine must have the chance.
PATIENCE = 3.0
# Seconds between two looks at a flight log, each of which reads 200 KB.
LOOK_SECONDS = 1.0


class HangDetector:
    """Looks at the flight logs of processes. `clock` is the one that they note the beginnings of calls by."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By process and beginning of the call: since when it is seen to be over its time.
        self._seen: dict[tuple[int, float], float] = {}

    def are_in(self, pid: int, inflight_journal: Path) -> bool:
        """Whether a process has a call that is over its time for too long. To be asked now and then."""
        now = self._clock()
        calls = {entry.called_at: entry.limit for entry in under_way(inflight_journal)}
        over = {(pid, called_at) for called_at, limit in calls.items() if now - called_at > limit}
        self._seen = {call: since for call, since in self._seen.items() if call[0] != pid or call in over}
        return any(now - self._seen.setdefault(call, now) >= PATIENCE for call in over)


def under_way(inflight_journal: Path) -> list[InflightRow]:
    """The rows in calls that have a time limit."""
    return [entry for entry in read_inflight_journal(inflight_journal) if entry.called_at]

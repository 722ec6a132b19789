"""Finds calls that exceed their time limit in worker processes that cannot end them.

A process ends its own rows as long as they return to Python now and then. A call that hangs in C code does not (a lock,
a driver, a regular expression that backtracks for ever), and if it holds the GIL, no thread of its process can run. The
supervisor sees such a call in the in-flight journal and kills the process.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from doteval.core import clocks
from doteval.supervision.inflight_journal import InflightRow, read_inflight_journal

# A call must have been seen over its limit for so long: its own process may be ending it, and a process that was
# stopped together with its machine must get the chance to.
GRACE_SECONDS = 3.0
# Between two reads of an in-flight journal, each of 200 KB.
CHECK_SECONDS = 1.0


class HangDetector:
    """Reads the in-flight journals of worker processes.

    clock: the one by which the processes note when a call began, in seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._clock = clock
        # By journal and start of the call: since when it is seen over its limit.
        self._seen: dict[tuple[Path, float], float] = {}

    def is_hung(self, inflight_journal: Path) -> bool:
        """Whether the process with this journal has a call that is over its limit for too long.

        To be called every `CHECK_SECONDS`.
        """
        now = self._clock()
        calls = {entry.called_at: entry.limit for entry in rows_in_calls(inflight_journal)}
        over = {(inflight_journal, called_at) for called_at, limit in calls.items() if now - called_at > limit}
        self._seen = {call: since for call, since in self._seen.items() if call[0] != inflight_journal or call in over}
        return any(now - self._seen.setdefault(call, now) >= GRACE_SECONDS for call in over)


def rows_in_calls(inflight_journal: Path) -> list[InflightRow]:
    """The rows whose call has a time limit and has not returned."""
    return [entry for entry in read_inflight_journal(inflight_journal) if entry.called_at]

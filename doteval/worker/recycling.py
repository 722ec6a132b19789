"""Decides when a worker process makes room for a fresh one."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from doteval.core.wording import counted

_STATM = Path("/proc/self/statm")
_MEGABYTE = 1_000_000


class Recycling:
    """The limits of one worker process.

    max_rows: rows that it stores; max_memory: megabytes that it uses. None is no limit.

    >>> Recycling(100, None).after_row(100)
    'recycled after 100 rows'
    """

    def __init__(self, max_rows: int | None, max_memory: int | None) -> None:
        self._max_rows = max_rows
        self._max_memory = max_memory

    def after_row(self, rows: int) -> str | None:
        """Why the process should leave now that it has stored `rows`, None if it may stay."""
        return (
            f"recycled after {counted(rows, 'row')}" if self._max_rows is not None and rows >= self._max_rows else None
        )

    def after_beat(self) -> str | None:
        """Why the process should leave with the memory that it uses now, None if it may stay."""
        if self._max_memory is not None and (used := memory_used() // _MEGABYTE) > self._max_memory:
            return f"recycled with {used} MB of memory"
        return None


def memory_used() -> int:
    """The resident memory of this process in bytes; where the system has no /proc, the most that it ever was."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024

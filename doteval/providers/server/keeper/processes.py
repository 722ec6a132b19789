"""Two facts about processes that the standard library does not offer: their start times, and their parent's death."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def started_at(pid: int) -> str | None:
    """The start time of a process, in clock ticks since boot. Together with the pid it identifies the process.

    None if there is no such process, or if the machine has no /proc.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def die_with(parent: int) -> Callable[[], None]:
    """A function to call in a new child of `parent`: from then on the kernel kills the child when `parent` dies."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        # The parent may have died before the call; then the child has another parent already.
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return prepare

"""Reaps zombie processes when running as PID 1 of a container."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

INIT = 1
_LISTINGS = Path("/proc/self/task")


def reap_orphans(own: Collection[int]) -> list[int]:
    """Reap the children that have ended and that nothing waits for. Returns their pids.

    own: children that something does wait for.

    Only PID 1 inherits orphans. In another process, or without /proc, this does nothing.
    """
    if os.getpid() != INIT:
        return []
    children = {int(word) for listing in _LISTINGS.glob("*/children") for word in listing.read_text().split()}
    return [pid for pid in sorted(children - set(own)) if _has_ended(pid)]


def _has_ended(pid: int) -> bool:
    try:
        found, _ = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return False
    return found == pid

"""Reaping: what process 1 of a container owes the processes whose parents are gone."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

INIT = 1
_LISTINGS = Path("/proc/self/task")


def reap_orphans(own: Collection[int]) -> list[int]:
    """Collect the exit codes of children that have ended and that nobody waits for. Returns their ids.

    `own` are children that somebody does wait for. Only process 1 inherits orphans; elsewhere, and where
    /proc does not tell, this does nothing.
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

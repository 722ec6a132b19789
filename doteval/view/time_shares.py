"""Spreads what is done again and again, so that all of it together takes a share of the time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable

from doteval.core import clocks
from doteval.store import Store

# Of each processor. Pages that are open must not slow down the rows that they show: at most 3% for looks at pages and
# for calculations together.
_SHARE_OF_PROCESSOR = 0.015
# A job that was not done again within so many intervals is forgotten: nobody looks at its page any more.
_REMEMBERED = 2


def work_clock(store: Store) -> Callable[[], float]:
    """A clock for the work of a thread: that of its processor, which waiting for a busy machine leaves alone.

    A database server works while the thread waits for it, so this time counts, too.
    """
    return time.thread_time if store.url.startswith("sqlite:") else clocks.monotonic


class TimeShare:
    """Says how long to wait between two runs of a job, so that all jobs together take a share of the time.

    share: of the time; None for what the view may take of this machine.

    >>> share = TimeShare(0.1)
    >>> share.note("one page", 0.2, least=2)
    >>> share.note("another", 0.3, least=2)
    >>> share.interval()
    5.0
    """

    def __init__(self, share: float | None = None) -> None:
        self._share = _SHARE_OF_PROCESSOR * (os.cpu_count() or 1) if share is None else share
        self._jobs: dict[Hashable, tuple[float, float]] = {}

    def note(self, job: Hashable, seconds: float, *, least: float) -> None:
        """Remember how long a job took, for as long as it can be expected again.

        least: the seconds from one run of it to the next if there are no other jobs.
        """
        self._jobs[job] = (seconds, float("inf"))
        self._jobs[job] = (seconds, clocks.monotonic() + _REMEMBERED * max(self.interval(), least))

    def interval(self) -> float:
        """The seconds from one run of a job to the next."""
        now = clocks.monotonic()
        self._jobs = {job: noted for job, noted in self._jobs.items() if now < noted[1]}
        return sum(seconds for seconds, _ in self._jobs.values()) / self._share

"""Tells which failures of a database are one outage, so that it is logged once and not by every thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from doteval.core import clocks
from doteval.errors import Outage

_LOG = logging.getLogger(__name__)


class Outages:
    """The outages of a database as the transactions of this process meet them. Threads may share it.

    >>> now = 0.0
    >>> outages = Outages(clock=lambda: now)
    >>> first = outages.failed(began=-10.0, writes=True)

    An outage that a write has met ends with a write, since a server that was demoted still answers those who read:

    >>> outages.used(writes=False)
    False
    >>> now = 5.0
    >>> outages.failed(began=1.0, writes=True) is first
    True

    A transaction that was already open then has met the same outage, although others have succeeded since:

    >>> outages.used(writes=True)
    True
    >>> outages.failed(began=-2.0, writes=True) is first
    True
    >>> outages.used(writes=True)
    True
    >>> outages.failed(began=6.0, writes=False) is first
    False
    """

    def __init__(self, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._outage: Outage | None = None
        self._over_at = 0.0
        self._lasts = False
        # Whether a write has failed in it.
        self._writes = False

    def failed(self, began: float, *, writes: bool) -> Outage:
        """A transaction that began at this time of the clock has failed. Returns the outage that it belongs to.

        writes: whether it was opened for writing
        """
        with self._lock:
            if self._outage is None or (not self._lasts and began > self._over_at):
                self._outage = Outage()
            self._writes = writes or (self._lasts and self._writes)
            self._lasts = True
            return self._outage

    def used(self, *, writes: bool) -> bool:
        """A transaction has succeeded. Returns whether an outage has ended with it."""
        # Read without the lock, which every transaction would wait for.
        if not self._lasts or (self._writes and not writes):
            return False
        with self._lock:
            self._lasts, self._over_at = False, self._clock()
        _LOG.info("the result store can be used again")
        return True

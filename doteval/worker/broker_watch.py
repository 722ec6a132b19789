"""Notices that the broker has gone silent, and has this worker process make its connections anew."""

from __future__ import annotations

import logging
from collections.abc import Callable

from doteval.broker.renewable_connections import renew_connections
from doteval.core import clocks
from doteval.core.wording import counted

logger = logging.getLogger("doteval.worker")


class BrokerWatch:
    """Knows how long ago the broker has answered Celery's thread, which otherwise asks it every second.

    While packets are dropped on the way to the broker, that thread waits for an answer that does not come. `check`
    belongs to another thread, which waits for neither the broker nor the store.

    seconds: of silence that are too many.
    renew: makes all connections to the broker anew, and returns how many there were.

    >>> now = 0.0
    >>> watch = BrokerWatch(10.0, renew=lambda: 3, clock=lambda: now)
    >>> watch.begin()
    >>> now = 12.0
    >>> watch.silence()
    12.0
    >>> watch.heard()
    >>> watch.silence()
    """

    def __init__(
        self,
        seconds: float,
        *,
        renew: Callable[[], int] = renew_connections,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._seconds = seconds
        self._renew = renew
        self._clock = clock
        # None while Celery's thread does not listen.
        self._heard_at: float | None = None
        self._renewed_at = 0.0
        # The silence that was logged: when the broker was heard before it.
        self._logged: float | None = None

    def begin(self) -> None:
        """Begin to watch: Celery's thread starts."""
        self._heard_at = self._clock()

    def heard(self) -> None:
        """Note that the broker has answered. Called on Celery's thread."""
        if self._heard_at is not None:
            self._heard_at = self._clock()

    def end(self) -> None:
        """Watch no more: Celery's thread ends, and asks the broker nothing while the last rows are running."""
        self._heard_at = None

    def silence(self) -> float | None:
        """For how many seconds the broker has said nothing, None if they are not too many."""
        heard_at = self._heard_at
        if heard_at is None:
            return None
        seconds = self._clock() - heard_at
        return seconds if seconds >= self._seconds else None

    def check(self) -> None:
        """Have the connections made anew if the broker is silent, again and again until it answers. Logs it once."""
        heard_at, now = self._heard_at, self._clock()
        if heard_at is None:
            return
        if now - heard_at < self._seconds:
            if self._logged is not None:
                logger.warning("the broker answers again, after %.0f s", heard_at - self._logged)
                self._logged = None
            return
        if now - max(heard_at, self._renewed_at) < self._seconds:
            return
        self._renewed_at = now
        renewed = self._renew()
        if self._logged is None:
            self._logged = heard_at
            logger.warning(
                "the broker has not answered this worker process for %.0f s; it makes %s anew",
                now - heard_at,
                counted(renewed, "connection"),
            )

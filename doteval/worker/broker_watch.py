"""Notices that the broker has gone silent, and has this worker process make its connections anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from doteval.broker.renewable_connections import renew_connections
from doteval.core import clocks
from doteval.core.wording import counted

logger = logging.getLogger("doteval.worker")


class BrokerWatch:
    """Knows how long ago the broker was heard: Redis answers Celery's thread every second, RabbitMQ sends heartbeats.

    While packets are dropped on the way to the broker, that thread waits for an answer that does not come. `check`
    belongs to another thread, which waits for neither the broker nor the store.

    seconds: of silence that are too many.
    renew: makes all connections to the broker anew, and returns how many there were; 0 if Celery does that.
    listen: whether a broker that is not asked is heard; None for one that is.

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
        self.listen: Callable[[], bool] | None = None
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
        if self.listen is not None and self.listen():
            self.heard()
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
                "the broker has not answered this worker process for %.0f s; it %s",
                now - heard_at,
                f"makes {counted(renewed, 'connection')} anew" if renewed else "connects anew",
            )


class ReceivedFrames:
    """Says whether RabbitMQ is heard, by the frames that come: heartbeats, if nothing else.

    connection: returns the connection of py-amqp that is used now, None while there is none.

    RabbitMQ may be silent for as long as the two sides have agreed on, and for ever if they agreed on no heartbeats.
    """

    def __init__(self, connection: Callable[[], Any], *, clock: Callable[[], float] = clocks.monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._last: tuple[int, int] | None = None
        self._changed_at = 0.0

    def __call__(self) -> bool:
        connection = self._connection()
        if connection is None:
            return False
        now, received = self._clock(), (id(connection), connection.bytes_recv)
        if received != self._last:
            self._last, self._changed_at = received, now
        return not connection.heartbeat or now - self._changed_at < connection.heartbeat

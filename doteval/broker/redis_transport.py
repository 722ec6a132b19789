"""kombu's Redis transport, with some of its manners changed for tasks that hold rows for minutes.

When a connection is lost, kombu hands out again what was sent on it, although the worker process
may be well and working on it; and when Redis is away at that moment, it fails in a way that ends the
worker process. Here such messages stay with their worker process, which renews their lease; if it
is dead, its rows are found when the queue has drained.

A Redis that is full refuses commands. kombu takes that for a mistake of the worker's, and ends it;
here it counts as a lost connection, and is tried again. One that refuses an acknowledgement has the
message still, and hands it out again when its lease has ended; kombu would count it among those that
the worker process holds, which takes no others once it holds as many as it may.

Who leaves has often asked for a message just now, and must not go before the answer, which may be one. kombu waits up
to a second for it; here Redis is told to answer.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import redis
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport.redis import Channel, QoS, Transport
from kombu.transport.virtual import QoS as HeldMessages


class ResilientQoS(QoS):
    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call] # kombu has no types
        except redis.exceptions.RedisError:
            HeldMessages.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


class ResilientChannel(Channel):
    QoS = ResilientQoS
    do_restore = False
    # Whether to ask for a message now.
    wants_more: Callable[[], bool] = staticmethod(lambda: True)
    # kombu makes a client for each command, which costs three times what the command does. Clients hold no
    # connection, only the pool, and may be used by several threads.
    _commander: Any = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        # Not where kombu asks whether a message may come: one that was asked for must be taken in.
        if self.wants_more():
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call] # kombu has no types

    def close(self) -> None:
        """Close, with the answer to what was asked last."""
        if self._in_poll:
            self._end_poll(self._in_poll)
        super().close()  # type: ignore[no-untyped-call] # kombu has no types

    def _end_poll(self, asking: Any) -> None:
        # Redis tells each connection its number when it is made, from version 6 on.
        told = asking.handshake_metadata or {}
        number = told.get(b"id", told.get("id"))
        if number is not None:
            # From one that is away or forbids it the answer comes in its own time, if ever.
            with contextlib.suppress(redis.exceptions.RedisError):
                self._create_client().client_unblock(number)

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None:
            # A task acknowledges a message whose connection was lost while it ran. kombu would raise
            # AttributeError, which ends the worker process; a connection error is logged.
            raise redis.exceptions.ConnectionError("the connection that the message came by is closed")
        return super()._connparams(*args, **kwargs)  # type: ignore[no-untyped-call] # kombu has no types

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            # The one that waits for messages, which kombu makes once and keeps.
            return super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        if self._commander is None or self._commander.connection_pool is not self.pool:
            self._commander = super()._create_client()  # type: ignore[no-untyped-call]
        return self._commander


class ResilientTransport(Transport):
    Channel = ResilientChannel
    connection_errors = (*Transport.connection_errors, redis.exceptions.OutOfMemoryError)


class ResilientConnection(Connection):
    """A connection to a broker, by this transport where that is Redis."""

    def get_transport_cls(self) -> Any:
        # Not by kombu's table of transports, which counts only until something else in the process has used Redis.
        found = super().get_transport_cls()  # type: ignore[no-untyped-call] # kombu has no types
        return ResilientTransport if found is Transport else found


class ResilientAMQP(AMQP):  # type: ignore[misc] # Celery has no types
    """What gives a Celery app its connections."""

    Connection = ResilientConnection


def fetch_while(wanted: Callable[[], bool]) -> None:
    """Have this process ask for a message only while one is wanted. It is asked again at each turn of Celery's loop."""
    ResilientChannel.wants_more = staticmethod(wanted)

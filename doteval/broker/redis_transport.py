"""kombu's Redis transport, changed for tasks that take minutes. What differs from kombu 5.7:

- When a connection is lost, kombu delivers the messages that were sent on it again, although the worker process may be
  alive and working on them; and if Redis is away at that moment, the worker process ends. Here such messages stay with
  their worker process, which renews their leases. If it is dead, a dispatcher publishes its rows again.
- A full Redis refuses commands. kombu takes that for an error of the worker and ends it; here it counts as a lost
  connection, and is retried. If Redis refuses an acknowledgement, it still has the message and delivers it again when
  its lease ends. kombu would go on counting it as held, and fetch no other message once it holds as many as it may.
- Connections may go silent. Here all of them can be made anew at once (`renewable_connections`), and `note_answers`
  says when a consumer was answered, which is every second.
- Channels are subscribed to by their names, since a user's rights may not cover patterns.
- At shutdown a BRPOP may be pending, whose answer may be a message. kombu waits up to a second for it; here CLIENT
  UNBLOCK ends it without losing a message.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import redis
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.transport import pyamqp
from kombu.transport.redis import Channel, QoS, SentinelChannel, SentinelTransport, Transport
from kombu.transport.virtual import QoS as HeldMessages
from redis.backoff import NoBackoff
from redis.retry import Retry

from doteval.broker.amqp_transport import RenewingSSLTransport, RenewingTransport
from doteval.broker.renewable_connections import renewable


class ResilientQoS(QoS):
    """kombu's record of unacknowledged messages, which forgets one also if its acknowledgement fails."""

    # Called when Redis has answered a consumer. kombu looks for expired leases every second.
    on_answer: Callable[[], None] = staticmethod(lambda: None)

    def restore_visible(self, *args: Any, **options: Any) -> None:
        super().restore_visible(*args, **options)  # type: ignore[no-untyped-call] # kombu has no types
        self.on_answer()

    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)  # type: ignore[no-untyped-call] # kombu has no types
        except redis.exceptions.RedisError:
            HeldMessages.ack(self, delivery_tag)  # type: ignore[no-untyped-call]
            raise


class ResilientChannel(Channel):
    """A channel that keeps its messages when its connection is lost, and fetches only while `wants_more`."""

    QoS = ResilientQoS
    do_restore = False
    # Whether to fetch a message now.
    wants_more: Callable[[], bool] = staticmethod(lambda: True)
    # kombu makes a client for each command, at three times the cost of the command itself. One client is enough: it
    # holds no connection, only the pool, and several threads may use it.
    _commander: Any = None

    def _brpop_start(self, timeout: float | None = None) -> None:
        # The check is here and not where kombu checks for room: an answer that is under way must be received.
        if self.wants_more():
            super()._brpop_start(timeout)  # type: ignore[no-untyped-call] # kombu has no types

    def _subscribe(self) -> None:
        # A user whose rights name a pattern of channels may subscribe to a channel that fits it, but to no pattern.
        # kombu takes every channel for a pattern, and a worker process could not start.
        topics: Any = self._get_subscribe_topics
        names = [name for queue in self.active_fanout_queues for name in topics(queue)]
        patterns = [name for name in names if set(name) & set("*?[#")]
        literal = [name for name in names if name not in patterns]
        client = self.subclient
        if names and client.connection._sock is None:
            client.connection.connect()
        if patterns:
            client.psubscribe(patterns)
        if literal:
            client.subscribe(literal)
        if names:
            self._in_listen = client.connection

    def close(self) -> None:
        """Close the channel, after the answer to a pending BRPOP."""
        if self._in_poll:
            self._end_poll(self._in_poll)
        super().close()  # type: ignore[no-untyped-call] # kombu has no types

    def _end_poll(self, connection: Any) -> None:
        # From version 6 on, Redis gives each connection an id with its handshake.
        handshake = connection.handshake_metadata or {}
        client_id = handshake.get(b"id", handshake.get("id"))
        if client_id is not None:
            # If Redis is away or forbids the command, BRPOP ends with its own timeout.
            with contextlib.suppress(redis.exceptions.RedisError):
                self._create_client().client_unblock(client_id)

    def _connparams(self, *args: Any, **kwargs: Any) -> Any:
        if self.connection is None:
            # A task acknowledges a message whose connection was lost while it ran. kombu would raise AttributeError,
            # which ends the worker process; a connection error is logged.
            raise redis.exceptions.ConnectionError("the connection that the message came by is closed")
        parameters = super()._connparams(*args, **kwargs)  # type: ignore[no-untyped-call] # kombu has no types
        return {**parameters, "connection_class": renewable(parameters["connection_class"])}

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            # The client that waits for messages; kombu makes it once and keeps it.
            return super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        if self._commander is None or self._commander.connection_pool is not self.pool:
            self._commander = super()._create_client()  # type: ignore[no-untyped-call]
        return self._commander


class ResilientTransport(Transport):
    """kombu's Redis transport with these channels; a full Redis counts as a lost connection."""

    Channel = ResilientChannel
    connection_errors = (*Transport.connection_errors, redis.exceptions.OutOfMemoryError)


class ResilientSentinelChannel(ResilientChannel, SentinelChannel):
    """The same for a Redis that Sentinels find."""

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:
        # A Sentinel that does not answer is not asked again: another one answers, and redis-py's tries would take
        # seconds for each connection. This is no transport option, since Celery sends these as JSON.
        given: Any = getattr(self, "sentinel_kwargs", None) or {}
        self.sentinel_kwargs = {"retry": Retry(NoBackoff(), 0), **given}
        return super()._sentinel_managed_pool(asynchronous)  # type: ignore[no-untyped-call] # kombu has no types


class ResilientSentinelTransport(SentinelTransport):
    """kombu's Sentinel transport with these channels."""

    Channel = ResilientSentinelChannel
    connection_errors = ResilientTransport.connection_errors


_TRANSPORTS = {
    Transport: ResilientTransport,
    SentinelTransport: ResilientSentinelTransport,
    pyamqp.Transport: RenewingTransport,
    pyamqp.SSLTransport: RenewingSSLTransport,
}


class ResilientConnection(Connection):
    """A connection to a broker: to a Redis with this transport, to RabbitMQ with that of `amqp_transport`."""

    def get_transport_cls(self) -> Any:
        # kombu's table of transports would not do: kombu caches the class once anything in the process has used Redis.
        found = super().get_transport_cls()  # type: ignore[no-untyped-call] # kombu has no types
        return _TRANSPORTS.get(found, found)


class ResilientAMQP(AMQP):  # type: ignore[misc] # Celery has no types
    """Makes the connections of a Celery app."""

    Connection = ResilientConnection


def fetch_while(wanted: Callable[[], bool]) -> None:
    """Have this process fetch a message only while `wanted` returns true. Celery's loop calls it at each turn."""
    ResilientChannel.wants_more = staticmethod(wanted)


def note_answers(heard: Callable[[], None]) -> None:
    """Call `heard`, about every second, when the broker has answered the consumer of this process."""
    ResilientQoS.on_answer = staticmethod(heard)

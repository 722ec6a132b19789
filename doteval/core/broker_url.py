"""A message broker by its URL: what kind it is, and what doteval may ask of it."""

from __future__ import annotations

from dataclasses import dataclass

from doteval.core.broker_parameters import SAME_AS, BrokerConnection, connection_of
from doteval.core.redaction import hide_password

_REDIS_SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and its capabilities, read from its URL once. It connects to nothing.

    url: as the user wrote it; several URLs are joined by ";". A URL that nothing can connect to is accepted here, and
        `connection` refuses it.
    private: the name of the server if one command started it for itself, None for a broker that is shared.

    As text a broker is its URL without the password.

    >>> print(Broker("redis://:secret@host:6379/0"))
    redis://:***@host:6379/0
    >>> Broker("amqp://host").is_pull_based
    False
    """

    url: str
    private: str | None = None

    def __str__(self) -> str:
        return hide_password(self.url)

    def __repr__(self) -> str:
        return f"Broker({str(self)!r}, private={self.private!r})"

    @property
    def scheme(self) -> str:
        """What the URL begins with, without "://": ``redis+socket``. Valkey counts as Redis."""
        written = self.url.partition(":")[0].lower()
        return SAME_AS.get(written, written)

    @property
    def connection(self) -> BrokerConnection:
        """How to connect, with the parameters of the URL.

        Raises BrokerError: the URL has a parameter that is not known, or not a valid value, or lacks one.
        """
        return connection_of(self.url)

    @property
    def is_private(self) -> bool:
        """Whether the broker belongs to one command and ends with it."""
        return self.private is not None

    @property
    def is_pull_based(self) -> bool:
        """Whether a worker process fetches each message when it wants one. RabbitMQ sends messages unasked."""
        return self.scheme in _REDIS_SCHEMES

    @property
    def has_priorities(self) -> bool:
        """Whether messages come in the order of the queues' priorities; else the worker process sorts them."""
        return self.is_pull_based

    @property
    def has_leases(self) -> bool:
        """Whether a message is delivered again after the visibility timeout, unless its lease is renewed."""
        return self.is_pull_based

    @property
    def has_quorum_queues(self) -> bool:
        """Whether queues may be kept on several machines, as RabbitMQ's quorum queues are."""
        return not self.is_pull_based

    @property
    def holds_shared_state(self) -> bool:
        """Whether it is one Redis, which can hold the reply cache and the rate limits besides messages."""
        return self.is_pull_based and (self.scheme == "sentinel" or ";" not in self.url)

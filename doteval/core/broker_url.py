"""A message broker by its URL: what kind it is, and what doteval may ask of it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, unquote

from doteval.core.redaction import hide_password

_REDIS_SCHEMES = ("redis", "rediss", "sentinel")
_SOCKET_SCHEME = "redis+socket"


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker and its capabilities, read from its URL once. It connects to nothing.

    url: as Celery takes it; several URLs are joined by ";". A URL that nothing can connect to is accepted here and
        refused when something connects.
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
        """What the URL begins with, without "://": ``redis+socket``."""
        return self.url.partition(":")[0]

    @property
    def is_private(self) -> bool:
        """Whether the broker belongs to one command and ends with it."""
        return self.private is not None

    @property
    def is_pull_based(self) -> bool:
        """Whether a worker process fetches each message when it wants one. RabbitMQ sends messages by itself."""
        return self.scheme in _REDIS_SCHEMES or self.scheme.startswith("redis+")

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
    def answers_redis_commands(self) -> bool:
        """Whether the server at the URL is a Redis itself. Sentinels only know where it is."""
        return self.is_pull_based and self.scheme != "sentinel"

    @property
    def holds_shared_state(self) -> bool:
        """Whether it is one Redis, which can hold the reply cache and the rate limits besides messages."""
        return ";" not in self.url and self.url.startswith(("redis://", "rediss://", f"{_SOCKET_SCHEME}://"))

    @property
    def redis_url(self) -> str:
        """The URL as redis-py takes it.

        >>> Broker("redis+socket:///tmp/redis.sock?virtual_host=1").redis_url
        'unix:///tmp/redis.sock?db=1'
        """
        beginning = f"{_SOCKET_SCHEME}://"
        if not self.url.startswith(beginning):
            return self.url
        path, _, query = self.url.removeprefix(beginning).partition("?")
        database = parse_qs(query).get("virtual_host", ["0"])[0].strip("/") or "0"
        return f"unix://{unquote(path)}?db={database}"

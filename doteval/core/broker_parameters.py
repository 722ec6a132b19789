"""Reads the parameters of a broker URL, for Celery and for redis-py, which take them in different ways.

Celery takes most of them as transport options and fails on those that it finds in the URL.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from doteval.core.redaction import hide_password, split_urls
from doteval.errors import BrokerError

# Schemes that mean the same. Valkey speaks the protocol of Redis.
SAME_AS = {"valkey": "redis", "valkeys": "rediss", "unix": "redis+socket"}
_TCP = ("redis", "rediss", "sentinel")

# A Redis that does not answer within so many seconds counts as unreachable.
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0
# Seconds between two looks of Celery whether a connection on which it waits for messages still answers.
_HEALTH_CHECK_SECONDS = 5
# A connection whose packets are dropped, as by a firewall or after a failover, is noticed after about 20 s: if nothing
# is sent, by probes after 10 s of silence; if something is sent, by the time without an acknowledgement.
_NOTICE_SILENCE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 2, "TCP_USER_TIMEOUT": 20_000}


def _yes(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]


_REDIS: Mapping[str, Callable[[str], Any]] = {
    "socket_timeout": float,
    "socket_connect_timeout": float,
    "socket_keepalive": _yes,
    "health_check_interval": int,
    "retry_on_timeout": _yes,
    "max_connections": int,
    "client_name": str,
    "global_keyprefix": str,
}
_OF_REDIS_PY = ("socket_keepalive", "health_check_interval", "max_connections", "client_name")
_SENTINEL: Mapping[str, Callable[[str], Any]] = {
    "master_name": str,
    "min_other_sentinels": int,
    "sentinel_username": str,
    "sentinel_password": str,
}
_DATABASE = ("db", "virtual_host")
# Celery finds these in the URL itself.
_SSL = ("ssl_cert_reqs", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_OF_AMQP = (*_SSL, "heartbeat")


@dataclass(frozen=True)
class BrokerConnection:
    """How to connect to a broker.

    celery_url: the URL for Celery and Flower.
    transport_options: what Celery needs beside it.
    redis_url: the URL for redis-py; None for other brokers, and for Sentinels, which only know where the Redis is.
    redis_options: what redis-py needs beside it.
    key_prefix: begins the name of every key in Redis.
    sentinels: the addresses of the Sentinels; `master_name` is what they call the Redis.
    """

    celery_url: str
    transport_options: Mapping[str, Any]
    redis_url: str | None = None
    redis_options: Mapping[str, Any] = field(default_factory=dict)
    key_prefix: str = ""
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)
    master_name: str = ""

    @property
    def answer_seconds(self) -> float:
        """How long to wait for an answer of a Redis."""
        return float(self.redis_options.get("socket_timeout", _ANSWER_SECONDS))


@lru_cache(maxsize=100)
def connection_of(url: str) -> BrokerConnection:
    """Read a broker URL; see `doteval.core.broker_url.Broker.connection`.

    >>> connection_of("valkey://host/0?db=2&socket_timeout=5").celery_url
    'redis://host/2'
    """
    parts = [_split(part, url) for part in split_urls(url)]
    schemes = {part.scheme for part in parts}
    if len(schemes) > 1:
        raise _refusal(url, "mixes kinds of brokers")
    if not schemes <= {*_TCP, "redis+socket"}:
        _refuse_unknown(parts, _OF_AMQP, url)
        return BrokerConnection(url, {})
    (scheme,) = schemes
    allowed = {**_REDIS, **_SENTINEL} if scheme == "sentinel" else _REDIS
    _refuse_unknown(parts, (*allowed, *_DATABASE, *(_SSL if scheme == "rediss" else ())), url)
    given = {name: value for part in parts for name, value in parse_qsl(part.query)}
    options = {name: _value(name, given[name], allowed[name], url) for name in allowed if name in given}
    database = given.get("db", given.get("virtual_host", "")).strip("/")
    if scheme == "sentinel" and not database:
        # One Redis is meant, so its database may be in any of the URLs.
        database = next((path for part in parts if (path := part.path.strip("/"))), "")
    if database and not database.isdecimal():
        raise _refusal(url, f"has no number as its database: {database!r}")
    timeouts: dict[str, Any] = {
        "socket_timeout": options.get("socket_timeout", _ANSWER_SECONDS),
        "socket_connect_timeout": options.get("socket_connect_timeout", _CONNECT_SECONDS),
    }
    over_tcp: dict[str, Any] = (
        {"socket_keepalive": True, "socket_keepalive_options": _keepalive()} if scheme in _TCP else {}
    )
    ssl = [(name, given[name]) for name in _SSL if name in given]
    celery_url = ";".join(_celery_url(part, database, ssl) for part in parts)
    redis_options = {**timeouts, **over_tcp, **_only(options, *_OF_REDIS_PY)}
    transport_options = {
        "health_check_interval": _HEALTH_CHECK_SECONDS,
        **timeouts,
        **over_tcp,
        **_only(options, *_REDIS),
    }
    prefix = options.get("global_keyprefix", "")
    if scheme != "sentinel":
        return BrokerConnection(
            celery_url, transport_options, _redis_url(parts[0], database, ssl), redis_options, prefix
        )
    if not options.get("master_name"):
        raise _refusal(url, "does not say which Redis the Sentinels shall find", "Add ?master_name=NAME to it.")
    ours = {"username": options.get("sentinel_username"), "password": options.get("sentinel_password")}
    sentinel_options = {**timeouts, **{name: value for name, value in ours.items() if value is not None}}
    of_sentinels = {"master_name": options["master_name"], "sentinel_kwargs": sentinel_options}
    of_sentinels |= _only(options, "min_other_sentinels")
    master = {
        "db": int(database or 0),
        "username": unquote(parts[0].username) if parts[0].username else None,
        "password": unquote(parts[0].password) if parts[0].password else None,
    }
    return BrokerConnection(
        celery_url,
        {**transport_options, **of_sentinels},
        None,
        {**redis_options, **master},
        prefix,
        tuple((part.hostname or "localhost", part.port or 26379) for part in parts),
        sentinel_options,
        options["master_name"],
    )


def _split(part: str, url: str) -> SplitResult:
    try:
        split = urlsplit(part)
        # Reading the port checks it.
        _ = split.port
    except ValueError:
        raise _refusal(url, "cannot be used", "In a password, write / as %2F, # as %23 and @ as %40.") from None
    return split._replace(scheme=SAME_AS.get(split.scheme, split.scheme))


def _refuse_unknown(parts: list[SplitResult], known: tuple[str, ...], url: str) -> None:
    for part in parts:
        for name, _ in parse_qsl(part.query, keep_blank_values=True):
            if name not in known:
                raise _refusal(
                    url, f"has a parameter that doteval does not know: {name}", f"Known: {', '.join(known)}."
                )


def _value(name: str, text: str, read: Callable[[str], Any], url: str) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError):
        raise _refusal(url, f"has no valid value for its parameter {name}") from None


def _refusal(url: str, what: str, remedy: str = "Forms of broker URLs: doteval docs cli#broker-urls") -> BrokerError:
    return BrokerError(f"the broker URL {hide_password(url)} {what}", remedy=remedy)


def _only(options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: options[name] for name in names if name in options}


def _keepalive() -> dict[int, int]:
    # macOS lacks some of them.
    return {getattr(socket, name): value for name, value in _NOTICE_SILENCE.items() if hasattr(socket, name)}


def _query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={quote(value, safe='/')}" for name, value in pairs)


def _celery_url(part: SplitResult, database: str, ssl: list[tuple[str, str]]) -> str:
    if part.scheme == "redis+socket":
        path = unquote(part.netloc + part.path)
        return f"redis+socket://{quote(path, safe='/')}?virtual_host={database or '0'}"
    return part._replace(path=f"/{database}" if database else part.path, query=_query(ssl)).geturl()


def _redis_url(part: SplitResult, database: str, ssl: list[tuple[str, str]]) -> str:
    if part.scheme == "redis+socket":
        return f"unix://{unquote(part.netloc + part.path)}?db={database or '0'}"
    return _celery_url(part, database, ssl)

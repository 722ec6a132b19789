"""The settings of API clients: where worker processes share replies and rate limits, and what tokens cost.

A process that runs rows sets them once, with `configure_clients`; clients read them with `client_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal

DEFAULT_CACHE_PATH = ".doteval/cache.db"

Caching = bool | Literal["always"] | None
"""Which replies a client shares. True: those to repeatable requests (temperature 0, a seed, embeddings); "always": all
successful replies; False: none; None: what the settings say (``--cache``), else none."""


class CacheMode(StrEnum):
    """Which clients use the reply cache."""

    ASK = "ask"
    """Clients that were made with ``cache=True``."""
    ON = "on"
    """All clients that were not made with ``cache=False``."""
    OFF = "off"
    """No clients."""
    REFRESH = "refresh"
    """The same as `ON`, but older replies are replaced by new ones."""


class TracingMode(StrEnum):
    """What is sent of rows and of their model calls as traces."""

    OFF = "off"
    """Nothing."""
    ON = "on"
    """Times, models, tokens, errors and scores, and no text of rows, prompts or replies."""
    CONTENT = "content"
    """Prompts and replies too."""


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """What a command says about the reply cache.

    since: replies that are older are not used, in seconds since the epoch.

    The choice of a submission is stored in the run configuration of its evaluations. For their rows it overrides the
    choice of the worker service.
    """

    mode: CacheMode
    since: float = 0.0

    def is_wanted_by(self, wish: Caching) -> bool:
        """Whether a client that was made with ``cache=wish`` shares replies.

        >>> CacheChoice(CacheMode.ON).is_wanted_by(None), CacheChoice(CacheMode.ASK).is_wanted_by(None)
        (True, False)
        """
        if self.mode is CacheMode.ASK:
            return bool(wish)
        return self.mode is not CacheMode.OFF and wish is not False

    def to_json(self) -> dict[str, Any]:
        """The stored form: plain values."""
        return {"mode": self.mode.value, "since": self.since}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> CacheChoice:
        """The choice from its stored form."""
        return cls(CacheMode(stored["mode"]), stored["since"])


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where API clients keep shared state, and for how long.

    broker: the URL of a Redis for rate limits; None keeps limits within the process.
    cache_path: the SQLite file of the reply cache; None keeps replies in the broker's Redis.
    refresh_since: with `CacheMode.REFRESH`, older replies do not count, in seconds since the epoch.
    cache_seconds: how long a reply is kept.
    cache_bytes: how many bytes of replies are kept.
    prices: the path of a price table.
    tracing: what is sent of calls, and of the rows that make them, as traces.
    """

    broker: str | None = None
    cache: CacheMode = CacheMode.ASK
    cache_path: str | None = DEFAULT_CACHE_PATH
    refresh_since: float = 0.0
    cache_seconds: float = 30 * 86400.0
    cache_bytes: int = 512 * 1024 * 1024
    prices: str | None = None
    tracing: TracingMode = TracingMode.OFF

    @property
    def choice(self) -> CacheChoice:
        """The cache choice for evaluations whose submission makes none."""
        return CacheChoice(self.cache, self.refresh_since if self.cache is CacheMode.REFRESH else 0.0)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClientConfig:
        """The configuration from its `dataclasses.asdict`. Raises TypeError, KeyError or ValueError otherwise."""
        given = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**given, "cache": CacheMode(given["cache"]), "tracing": TracingMode(given["tracing"])})


_current = ClientConfig()


def configure_clients(settings: ClientConfig) -> None:
    """Set the configuration of all clients that this process makes from now on."""
    global _current
    _current = settings


def client_config() -> ClientConfig:
    """The configuration for clients of this process."""
    return _current

"""What worker processes share, and where: the settings that commands hand on to clients.

Whoever starts rows says it once in its process, with `configure_clients`; clients ask `client_config`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Literal

DEFAULT_CACHE_PATH = ".doteval/cache.db"

Caching = bool | Literal["always"] | None
"""True: replies to requests that are the same by their parameters (temperature 0, a seed, embeddings) are
shared; "always": all successful replies; False: none; None: as the settings say (``--cache``), else none."""


class CacheMode(StrEnum):
    """Whether replies are looked up and kept."""

    ASK = "ask"
    """By the clients that were made with ``cache=True``."""
    ON = "on"
    """By all clients that were not made with ``cache=False``."""
    OFF = "off"
    """By none."""
    REFRESH = "refresh"
    """As with `ON`, but replies from before now are asked for anew."""


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """What a command says of the cache. Replies from before `since`, in seconds since the epoch, are asked for anew.

    What a submission says is stored in the run configuration of its evaluations, and counts more for their rows than
    what the worker service was told.
    """

    mode: CacheMode
    since: float = 0.0

    def is_wanted_by(self, wish: Caching) -> bool:
        """Whether a client that was made with ``cache=wish`` shares replies."""
        if self.mode is CacheMode.ASK:
            return bool(wish)
        return self.mode is not CacheMode.OFF and wish is not False

    def to_json(self) -> dict[str, Any]:
        """The form in which an evaluation's run configuration is stored."""
        return {"mode": self.mode.value, "since": self.since}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> CacheChoice:
        """The choice from its stored form."""
        return cls(CacheMode(stored["mode"]), stored["since"])


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Where the shared state lives.

    `broker` is the URL of a Redis for limits, None to keep limits within the process. `cache_path` is the
    SQLite file of the cache; None keeps it in the broker's Redis. `refresh_since` are seconds since the
    epoch, from which on replies count with `CacheMode.REFRESH`. `cache_seconds` is how long a reply is
    kept, `cache_bytes` how many bytes of replies at most. `prices` names a price table.
    """

    broker: str | None = None
    cache: CacheMode = CacheMode.ASK
    cache_path: str | None = DEFAULT_CACHE_PATH
    refresh_since: float = 0.0
    cache_seconds: float = 30 * 86400.0
    cache_bytes: int = 512 * 1024 * 1024
    prices: str | None = None

    @property
    def choice(self) -> CacheChoice:
        """Whether replies are shared where a submission says nothing."""
        return CacheChoice(self.cache, self.refresh_since if self.cache is CacheMode.REFRESH else 0.0)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> ClientConfig:
        """What `dataclasses.asdict` made of one. Raises TypeError, KeyError or ValueError for anything else."""
        given = {field.name: values[field.name] for field in fields(cls)}
        return cls(**{**given, "cache": CacheMode(given["cache"])})


_shared = ClientConfig()


def configure_clients(settings: ClientConfig) -> None:
    """Say what clients of this process share, before they are made."""
    global _shared
    _shared = settings


def client_config() -> ClientConfig:
    """What clients of this process share."""
    return _shared

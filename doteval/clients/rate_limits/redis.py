"""Rate limits in Redis, shared by all worker processes wherever they run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources

import orjson
import redis

from doteval.clients.rate_limits.rate_limit import Answer, Message
from doteval.clients.redis_connection import key_prefix, redis_client
from doteval.clients.redis_scripts import Script, Scripts
from doteval.core.broker_url import Broker
from doteval.core.redaction import without_arguments
from doteval.errors import ResourceError

_PREFIX = "doteval:rate_limit"
# What was learned of a server's limits is out of date after an hour without requests.
_KEEP_SECONDS = 3600


class RedisRateLimits:
    """`RateLimits` in the Redis of the broker URL, under the prefix ``doteval:rate_limit``."""

    def __init__(self, broker: str, *, prefix: str = _PREFIX, now: str = "") -> None:
        self._shown = str(Broker(broker))
        self._client = redis_client(broker)
        self._scripts = Scripts(self._client)
        self._prefix = key_prefix(broker) + prefix
        self._script = Script(resources.files(__package__).joinpath("rate_limit.lua").read_text(encoding="utf-8"))
        # Empty for the clock of Redis, which all worker processes share; tests set a time.
        self.now = now

    def step(self, messages: Sequence[tuple[str, Message]]) -> list[Answer]:
        """One answer for each key and message. Raises ResourceError if Redis cannot be reached or used."""
        calls = [
            (self._script, [f"{self._prefix}:{_digest(key)}"], [orjson.dumps(message), self.now, _KEEP_SECONDS])
            for key, message in messages
        ]
        try:
            replies = self._scripts.run(calls)
        except redis.RedisError as error:
            said = without_arguments(str(error))
            raise ResourceError(
                f"the rate limits in {self._shown} cannot be used: {type(error).__name__}: {said}",
                remedy="Check that Redis runs.",
            ) from error
        return [_answer([float(text) for text in reply]) for reply in replies]

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _digest(key: str) -> str:
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def _answer(reply: list[float]) -> Answer:
    limited, wait, sent, tokens_sent, *grants = reply
    return {
        "grants": [int(granted) for granted in grants],
        "wait": wait,
        "sent": sent,
        "tokens_sent": tokens_sent,
        "limited": int(limited),
    }

"""Connects to Redis by the URLs that Celery uses."""

from __future__ import annotations

import redis

from doteval.core.broker_url import Broker
from doteval.errors import ResourceError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


def redis_client(broker: str) -> redis.Redis:
    """A client of the broker's Redis, which connects when it is first used. Raises ResourceError for a broken URL."""
    try:
        client: redis.Redis = redis.Redis.from_url(
            Broker(broker).redis_url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
        )
    except ValueError as error:
        # Without the error's text, which may quote a part of the password.
        raise ResourceError(f"the Redis URL {Broker(broker)} cannot be used ({type(error).__name__})") from None
    return client


def redis_time(broker: str) -> float:
    """Seconds since the epoch by the clock of the broker's Redis. Raises ResourceError if it cannot be reached."""
    with redis_client(broker) as client:
        try:
            seconds, microseconds = client.time()
        except redis.RedisError as error:
            raise ResourceError(f"the Redis {Broker(broker)} does not answer: {type(error).__name__}") from error
    return float(seconds) + float(microseconds) / 1e6

"""A Redis by the URL that Celery has for it."""

from __future__ import annotations

import redis

from doteval.core.broker_url import Broker
from doteval.errors import ResourceError

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0


def redis_client(broker: str) -> redis.Redis:
    """A client of a broker's Redis. Connects to nothing yet. Raises ResourceError for a URL that is none."""
    try:
        client: redis.Redis = redis.Redis.from_url(
            Broker(broker).redis_url,
            socket_connect_timeout=_CONNECT_SECONDS,
            socket_timeout=_ANSWER_SECONDS,
        )
    except ValueError as error:
        # Without the error's text, which may quote a part of the password.
        raise ResourceError(f"the Redis URL {hidden(broker)} cannot be used ({type(error).__name__})") from None
    return client


def redis_time(broker: str) -> float:
    """Seconds since the epoch by the clock of a broker's Redis. Raises ResourceError if it cannot be reached."""
    with redis_client(broker) as client:
        try:
            seconds, microseconds = client.time()
        except redis.RedisError as error:
            raise ResourceError(f"the Redis {hidden(broker)} does not answer: {type(error).__name__}") from error
    return float(seconds) + float(microseconds) / 1e6


def hidden(broker: str) -> str:
    return str(Broker(broker))

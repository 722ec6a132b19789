"""Connects to Redis by the URLs that Celery uses."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from doteval.core.broker_url import Broker
from doteval.errors import BrokerError, ResourceError

# The clients wait less than Celery: a row waits for them. They ask once more, on a fresh connection.
_ANSWER_SECONDS = 5.0


def redis_client(broker: str) -> redis.Redis:
    """A client of the broker's Redis, which connects when it is first used. Raises ResourceError for a broken URL."""
    try:
        connection = Broker(broker).connection
        options = dict(connection.redis_options)
        options["socket_timeout"] = min(options["socket_timeout"], _ANSWER_SECONDS)
        options["retry"] = Retry(NoBackoff(), 1)
        if connection.redis_url is None:
            sentinel = Sentinel(  # type: ignore[no-untyped-call] # redis-py has no types here
                connection.sentinels, sentinel_kwargs=dict(connection.sentinel_options), **options
            )
            found: redis.Redis = sentinel.master_for(connection.master_name)  # type: ignore[no-untyped-call]
            return found
        client: redis.Redis = redis.Redis.from_url(connection.redis_url, **options)
    except BrokerError as error:
        raise ResourceError(error.message, remedy=error.remedy) from None
    except ValueError as error:
        # Without the error's text, which may quote a part of the password.
        raise ResourceError(f"the Redis URL {Broker(broker)} cannot be used ({type(error).__name__})") from None
    return client


def key_prefix(broker: str) -> str:
    """The prefix of doteval's keys in the broker's Redis, which others may use too."""
    return Broker(broker).connection.key_prefix


def redis_time(broker: str) -> float:
    """Seconds since the epoch by the clock of the broker's Redis. Raises ResourceError if it cannot be reached."""
    with redis_client(broker) as client:
        try:
            seconds, microseconds = client.time()
        except redis.RedisError as error:
            raise ResourceError(f"the Redis {Broker(broker)} does not answer: {type(error).__name__}") from error
    return float(seconds) + float(microseconds) / 1e6

"""Looking at a broker: whether it keeps what it is given, and what its clock says."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import redis
from kombu.exceptions import OperationalError

from doteval.broker.celery_app import celery_app
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """A Redis as it says itself. A setting is None where the server does not tell it, as managed ones may.

    `clock_offset` is by how many seconds its clock is ahead of this machine's.
    """

    version: str
    clock_offset: float
    maxmemory_policy: str | None
    appendonly: str | None


def inspect_redis(broker: Broker, queue: str) -> RedisFacts | None:
    """What a Redis says of itself; None if the broker is none.

    Raises BrokerError if it cannot be reached.
    """
    if not broker.answers_redis_commands:
        return None
    connection: Any = celery_app(broker, queue).connection_for_read()
    try:
        client = connection.default_channel.client
        before = time.time()
        seconds, microseconds = client.time()
        offset = seconds + microseconds / 1e6 - (before + time.time()) / 2
        version = str(client.info("server").get("redis_version", "unknown"))
        return RedisFacts(version, offset, _setting(client, "maxmemory-policy"), _setting(client, "appendonly"))
    except (redis.RedisError, OperationalError, OSError) as error:
        raise BrokerError(f"the broker {broker} cannot be asked: {type(error).__name__}") from error
    finally:
        connection.release()


def _setting(client: Any, name: str) -> str | None:
    try:
        found = client.config_get(name)
    except redis.ResponseError:
        # Managed servers don't let their clients ask.
        return None
    return str(found[name]) if name in found else None

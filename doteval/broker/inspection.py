"""Looks at a Redis broker: its clock, and whether it keeps its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from kombu.exceptions import OperationalError

from doteval.broker.celery_app import celery_app
from doteval.broker.refusals import broker_error
from doteval.core import clocks
from doteval.core.broker_url import Broker


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a Redis reports about itself.

    clock_offset: seconds by which its clock is ahead of this machine's.
    maxmemory_policy, appendonly: settings; None if the server does not report them: managed ones may not, and the user
        in the URL may lack the right to run CONFIG GET.
    """

    clock_offset: float
    maxmemory_policy: str | None
    appendonly: str | None


def inspect_redis(broker: Broker, queue: str) -> RedisFacts | None:
    """Ask a broker about itself. Returns None if it is not a Redis.

    Raises BrokerError: if it cannot be reached.
    """
    if not broker.is_pull_based:
        return None
    connection: Any = celery_app(broker, queue).connection_for_read()
    try:
        client = connection.default_channel.client
        before = clocks.now()
        seconds, microseconds = client.time()
        offset = seconds + microseconds / 1e6 - (before + clocks.now()) / 2
        return RedisFacts(offset, _setting(client, "maxmemory-policy"), _setting(client, "appendonly"))
    except (redis.RedisError, OperationalError, OSError) as error:
        raise broker_error(broker, error) from error
    finally:
        connection.release()


def _setting(client: Any, name: str) -> str | None:
    try:
        found = client.config_get(name)
    except redis.ResponseError:
        # Managed servers forbid the command.
        return None
    return str(found[name]) if name in found else None

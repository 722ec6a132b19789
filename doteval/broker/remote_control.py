"""Sends commands to live worker processes over the broker."""

from __future__ import annotations

from collections.abc import Sequence

import redis
from kombu.exceptions import OperationalError

from doteval.broker.celery_app import celery_app
from doteval.broker.refusals import broker_error
from doteval.core.broker_url import Broker

# The remote-control command that worker processes answer to.
DRAIN = "doteval_drain"
_ANSWER_SECONDS = 5.0


def ask_to_drain(broker: Broker, queue: str, names: Sequence[str]) -> list[str]:
    """Ask worker processes to leave, each with its whole service.

    names: the names by which Celery knows them.

    Returns the names of those that agreed.

    Raises BrokerError: if the broker cannot be reached.
    """
    app = celery_app(broker, queue)
    try:
        answers = app.control.broadcast(
            DRAIN, destination=list(names), reply=True, timeout=_ANSWER_SECONDS, limit=len(names)
        )
    except (OperationalError, OSError, redis.RedisError) as error:
        raise broker_error(broker, error) from error
    finally:
        app.close()
    return sorted(name for answer in answers or () for name, reply in answer.items() if "ok" in reply)

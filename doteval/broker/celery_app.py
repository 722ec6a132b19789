"""The Celery app that submitter and worker processes share, and why each setting is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from doteval.broker.fair_queues import FairQueueCycle, fair_queue_names, is_fair_queue
from doteval.broker.redis_transport import ResilientAMQP
from doteval.core.broker_url import Broker

# Seconds after which the broker hands out a message again whose worker process neither finished it nor
# renewed its lease. Lost rows are found much sooner, by comparing with the store; this is the last resort.
VISIBILITY_TIMEOUT = 3600


def celery_app(
    broker: Broker, queue: str, visibility_timeout: int = VISIBILITY_TIMEOUT, *, also: Sequence[str] = ()
) -> Celery:
    """An app for the broker URL whose row tasks go to `queue`. Connects to nothing yet.

    A worker process of it takes row tasks from the queues in `also` too.
    """
    app = Celery("doteval", broker=broker.url, amqp=ResilientAMQP, set_as_current=False)
    app.conf.update(settings(broker, queue, visibility_timeout))
    app.conf.task_queues = [each for name in (queue, *also) for each in declared_queues(name, broker)]
    return app


def declared_queues(queue: str, broker: Broker) -> list[Queue]:
    """All lanes of a queue, as the broker knows them."""
    return [_queue(name, broker) for name in fair_queue_names(queue)]


def consume_whole_queues(app: Celery, broker: Broker) -> tuple[str, ...]:
    """Have a worker process of an app, which is about to take from some queues, take from all their lanes.

    Celery's own option -Q names queues and knows no lanes. Returns the names of the queues.
    """
    known = app.amqp.queues
    names = tuple(name for name in known.consume_from if not is_fair_queue(name))
    lanes = [known.add(each).name for name in names for each in declared_queues(name, broker)]
    known.select(lanes)
    return names


def settings(broker: Broker, queue: str, visibility_timeout: int) -> dict[str, Any]:
    return {
        # Nothing but JSON is sent or accepted: a message can start code that is installed on the
        # worker, and no other.
        "task_serializer": "json",
        "accept_content": ["json"],
        # The store is the result.
        "result_backend": None,
        "task_ignore_result": True,
        # At least once: a task is acknowledged when its results are stored.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_default_queue": queue,
        "task_create_missing_queues": True,
        # Events are for Flower.
        "worker_send_task_events": True,
        # None from the submitter: it cannot carry the evaluation's name, and where it comes last it hides it.
        "task_send_sent_event": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Prefork children may load a model for minutes before they report up.
        "worker_proc_alive_timeout": 600,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_transport_options": _transport_options(broker, visibility_timeout),
    }


def _queue(name: str, broker: Broker) -> Queue:
    # RabbitMQ keeps quorum queues on disk, and on several machines where it has them.
    arguments = {"x-queue-type": "quorum"} if broker.has_quorum_queues else None
    exchange = Exchange(name)  # type: ignore[no-untyped-call] # kombu has no types
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def _transport_options(broker: Broker, visibility_timeout: int) -> dict[str, Any]:
    if not broker.is_pull_based:
        return {}
    return {
        "visibility_timeout": visibility_timeout,
        # Look for messages to restore once a second, not once in a hundred.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": f"{FairQueueCycle.__module__}:{FairQueueCycle.__qualname__}",
        "socket_keepalive": True,
        "socket_connect_timeout": 5,
    }

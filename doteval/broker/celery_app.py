"""The Celery app that submitter and worker processes share, and why each setting is as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery
from kombu.entity import Exchange, Queue

from doteval.broker.fair_queues import FairQueueCycle, fair_queue_names, is_fair_queue
from doteval.broker.redis_transport import ResilientAMQP
from doteval.core.broker_url import Broker

# RabbitMQ that does not answer a request within so many seconds counts as unreachable. That of Redis is in its URL.
_ANSWER_SECONDS = 10
# Seconds between two heartbeats of RabbitMQ; after two without a sign of life a connection is made anew. RabbitMQ's own
# default of 60 would leave a worker process deaf for two minutes.
_HEARTBEAT_SECONDS = 8
# Seconds after which Redis delivers a message again that was neither acknowledged nor had its lease renewed.
# Dispatchers find lost rows in the store within seconds; this is the last resort.
VISIBILITY_TIMEOUT = 3600


def celery_app(
    broker: Broker, queue: str, visibility_timeout: int = VISIBILITY_TIMEOUT, *, also: Sequence[str] = ()
) -> Celery:
    """Make a Celery app that sends its row tasks to `queue` of a broker. It connects to nothing yet.

    visibility_timeout: seconds.
    also: further queues that a worker process of this app takes row tasks from.

    Raises BrokerError: the URL of the broker has a parameter that is not known.
    """
    app = Celery("doteval", broker=broker.connection.celery_url, amqp=ResilientAMQP, set_as_current=False)
    app.conf.update(settings(broker, queue, visibility_timeout))
    app.conf.task_queues = [each for name in (queue, *also) for each in declared_queues(name, broker)]
    return app


def declared_queues(queue: str, broker: Broker) -> list[Queue]:
    """All fair queues of a queue, as kombu declares them."""
    return [_queue(name, broker) for name in fair_queue_names(queue)]


def consume_whole_queues(app: Celery, broker: Broker) -> tuple[str, ...]:
    """Have a worker process take row tasks from all fair queues of the queues that its app consumes from.

    Celery's option -Q names queues and knows no fair queues. Returns the names of the queues.
    """
    known = app.amqp.queues
    names = tuple(name for name in known.consume_from if not is_fair_queue(name))
    fair_queues = [known.add(each).name for name in names for each in declared_queues(name, broker)]
    known.select(fair_queues)
    return names


def settings(broker: Broker, queue: str, visibility_timeout: int) -> dict[str, Any]:
    """The settings of the Celery app, each with its reason."""
    return {
        # Only JSON is sent and accepted, so a message can only start code that is installed on the worker.
        "task_serializer": "json",
        "accept_content": ["json"],
        # Results are in the store.
        "result_backend": None,
        "task_ignore_result": True,
        # A task is acknowledged when its results are stored: delivery at least once.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_default_queue": queue,
        "task_create_missing_queues": True,
        # Flower shows these events.
        "worker_send_task_events": True,
        # The submitter sends no event: it cannot carry the evaluation's name, and as the last one it hides it.
        "task_send_sent_event": False,
        "broker_heartbeat": _HEARTBEAT_SECONDS,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # Celery kills a prefork child that is not up within 4 s by default. Loading a model takes minutes.
        "worker_proc_alive_timeout": 600,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_transport_options": _transport_options(broker, visibility_timeout),
    }


def _queue(name: str, broker: Broker) -> Queue:
    # RabbitMQ keeps quorum queues on disk, and on all machines of a cluster.
    arguments = {"x-queue-type": "quorum"} if broker.has_quorum_queues else None
    exchange = Exchange(name)  # type: ignore[no-untyped-call] # kombu has no types
    return Queue(name, exchange, routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def _transport_options(broker: Broker, visibility_timeout: int) -> dict[str, Any]:
    given = broker.connection.transport_options
    if not broker.is_pull_based:
        return {"read_timeout": _ANSWER_SECONDS, "write_timeout": _ANSWER_SECONDS, **given}
    return {
        **given,
        "visibility_timeout": visibility_timeout,
        # Look for messages to deliver again every second; kombu's default is every 100 s.
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "queue_order_strategy": f"{FairQueueCycle.__module__}:{FairQueueCycle.__qualname__}",
    }

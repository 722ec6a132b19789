"""Celery's consumer of messages, without what row tasks have no use for."""

from __future__ import annotations

from celery.worker.consumer import Consumer


class RowTaskConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """On quorum queues Celery's own makes 28 queues more, for tasks that wait for their time: row tasks never do."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

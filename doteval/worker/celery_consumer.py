"""Celery's consumer of messages, without delayed delivery, and with the events of the last row tasks."""

from __future__ import annotations

import time
from typing import Any

from amqp.exceptions import NotFound, ResourceLocked
from celery.worker import state
from celery.worker.consumer import Consumer

from doteval.core import clocks

# RabbitMQ keeps the queue for remote control locked until it has noticed as well that the old connection is silent.
_LOCKED_SECONDS = 60.0
_PAUSE_SECONDS = 1.0


class RowTaskConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer for row tasks.

    It declares no queues for delayed delivery: on quorum queues Celery 5.7 makes 28 of them, and row tasks have no ETA.
    A queue that is deleted on RabbitMQ, or is still locked by the connection before, counts as a lost connection.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Queues are deleted one after another. One that has been declared again may be gone before this consumes
        # from it; Celery 5.7 would end, and with it the models that its process has loaded.
        self.connection_errors: tuple[type[BaseException], ...] = (*self.connection_errors, NotFound, ResourceLocked)
        self._locked_since: float | None = None

    def on_connection_error_after_connected(self, error: BaseException) -> None:
        """Drop the broken connection to the broker. Celery calls this before it connects anew."""
        if isinstance(error, ResourceLocked):
            self._await_own_queue(error)
        else:
            self._locked_since = None
        events = self.event_dispatcher
        if events is not None and events.connection is not None and events.connection.transport.driver_type == "amqp":
            # It went silent with the other one. Celery would close it in order, and wait for RabbitMQ's answers.
            events.connection.collect()
        super().on_connection_error_after_connected(error)

    def _await_own_queue(self, error: ResourceLocked) -> None:
        """Wait a moment. Raises the error if the queue was never this process's own, or has been locked for long.

        Then another process uses it, which has the same name on a machine of the same name.
        """
        if self._locked_since is None:
            self._locked_since = clocks.monotonic()
        if not self.restart_count or clocks.monotonic() - self._locked_since > _LOCKED_SECONDS:
            raise error
        time.sleep(_PAUSE_SECONDS)

    def on_send_event_buffered(self) -> None:
        """Have an event of a task published. Celery calls this on any thread."""
        if state.should_stop is None:
            super().on_send_event_buffered()
        else:
            # While the last rows in flight end, Celery's loop does not turn any more.
            self._flush_events()

    def on_close(self) -> Any:
        """Publish the events that wait before the consumer stops."""
        self._flush_events()
        return super().on_close()

"""Celery's consumer of messages, without delayed delivery, and with the events of the last row tasks."""

from __future__ import annotations

from typing import Any

from amqp.exceptions import NotFound
from celery.worker import state
from celery.worker.consumer import Consumer


class RowTaskConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer for row tasks.

    It declares no queues for delayed delivery: on quorum queues Celery 5.7 makes 28 of them, and row tasks have no ETA.
    A queue that is deleted on RabbitMQ counts as a lost connection: it is declared again.
    """

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Queues are deleted one after another. One that has been declared again may be gone before this consumes
        # from it; Celery 5.7 would end, and with it the models that its process has loaded.
        self.connection_errors: tuple[type[BaseException], ...] = (*self.connection_errors, NotFound)

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

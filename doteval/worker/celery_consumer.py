"""Celery's consumer of messages, without delayed delivery and with task events sent in groups."""

from __future__ import annotations

import time
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer

# The first event of row tasks waits so long for others. Celery publishes events at each turn of its loop, which takes
# as much time as everything else that it does for a task.
_EVENT_DELAY_SECONDS = 0.1


class RowTaskConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """Celery's consumer for row tasks.

    It declares no queues for delayed delivery: on quorum queues Celery 5.7 makes 28 of them, and row tasks have no ETA.
    """

    # When the waiting events are published, as a time: Celery loses its timers with a lost connection.
    _events_wait_until = 0.0

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def on_send_event_buffered(self) -> None:
        """Have an event of a task published soon. Celery calls this on any thread."""
        if state.should_stop is not None:
            # While the last rows in flight end, the loop does not turn any more.
            self._flush_events()
        elif self.hub is not None and time.monotonic() >= self._events_wait_until:
            self._events_wait_until = time.monotonic() + _EVENT_DELAY_SECONDS
            # Only the thread of the loop may set timers.
            self.hub.call_soon(self._publish_events_later)

    def on_close(self) -> Any:
        """Publish the waiting events before the consumer stops."""
        self._flush_events()
        return super().on_close()

    def _publish_events_later(self) -> None:
        self.hub.call_later(_EVENT_DELAY_SECONDS, self._flush_events)

"""Celery's consumer of messages, without what row tasks have no use for, and with events in groups."""

from __future__ import annotations

import time
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer

# Seconds for which the first event of row tasks waits for others. Celery publishes them at each turn of its loop, which
# takes as long as all else that it does for a task.
_EVENTS_WAIT = 0.1


class RowTaskConsumer(Consumer):  # type: ignore[misc] # Celery has no types
    """On quorum queues Celery's own makes 28 queues more, for tasks that wait for their time: row tasks never do."""

    # Until when events wait that have come. By the clock: when a connection is lost, Celery forgets its timers.
    _events_wait_until = 0.0

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc] # Celery has no types
        default_steps = tuple(
            step for step in Consumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        )

    def on_send_event_buffered(self) -> None:
        """An event of a task has come, on whichever thread, and waits to be published."""
        if state.should_stop is not None:
            # The loop turns no more, while rows in flight end.
            self._flush_events()
        elif self.hub is not None and time.monotonic() >= self._events_wait_until:
            self._events_wait_until = time.monotonic() + _EVENTS_WAIT
            # Timers are for the thread of the loop only.
            self.hub.call_soon(self._publish_events_later)

    def on_close(self) -> Any:
        """The consumer stops, perhaps for good."""
        self._flush_events()
        return super().on_close()

    def _publish_events_later(self) -> None:
        self.hub.call_later(_EVENTS_WAIT, self._flush_events)

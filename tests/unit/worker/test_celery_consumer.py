"""No event of a row task is lost when a worker process leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from doteval.worker import celery_consumer
from doteval.worker.celery_consumer import RowTaskConsumer


class Loop:
    """The part of Celery's loop that the consumer uses."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)


class Dispatcher:
    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def celery() -> Any:
    made = RowTaskConsumer.__new__(RowTaskConsumer)
    made.hub, made.event_dispatcher = Loop(), Dispatcher()
    made._flush_events_promise = made._flush_events
    made.controller, made.task_buckets = None, {}
    return made


def test_events_are_published_on_the_thread_of_the_loop(celery: Any) -> None:
    celery.on_send_event_buffered()
    assert celery.event_dispatcher.flushed == 0
    [publish] = celery.hub.soon
    publish()
    assert celery.event_dispatcher.flushed == 1


def test_waiting_events_are_published_at_the_end(celery: Any) -> None:
    celery.on_send_event_buffered()
    celery.on_close()
    assert celery.event_dispatcher.flushed == 1
    celery.event_dispatcher = None
    celery.on_close()


def test_events_do_not_wait_while_the_process_leaves(celery: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celery_consumer.state, "should_stop", 0)
    celery.on_send_event_buffered()
    assert (celery.hub.soon, celery.event_dispatcher.flushed) == ([], 1)

"""Events of row tasks are published in groups, on the thread of Celery's loop."""

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
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.later.append((seconds, callback))

    def turn(self) -> None:
        for callback in self.soon:
            callback()
        self.soon.clear()


class Dispatcher:
    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> None:
        self.flushed += 1


@pytest.fixture
def celery(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = RowTaskConsumer.__new__(RowTaskConsumer)
    made.hub, made.event_dispatcher, made.now = Loop(), Dispatcher(), 100.0
    made.controller, made.task_buckets = None, {}
    monkeypatch.setattr(celery_consumer.time, "monotonic", lambda: made.now)
    return made


def test_events_wait_for_others(celery: Any) -> None:
    for _ in range(5):
        celery.on_send_event_buffered()
    celery.hub.turn()
    [(seconds, publish)] = celery.hub.later
    assert (seconds, celery.event_dispatcher.flushed) == (0.1, 0)
    publish()
    assert celery.event_dispatcher.flushed == 1


def test_events_are_published_although_celery_lost_its_timers(celery: Any) -> None:
    celery.on_send_event_buffered()
    celery.hub.turn()
    # As when a connection is lost.
    celery.hub.later.clear()
    celery.on_send_event_buffered()
    assert not celery.hub.soon
    celery.now += 0.1
    celery.on_send_event_buffered()
    celery.hub.turn()
    assert len(celery.hub.later) == 1


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


def test_an_event_without_a_loop_is_ignored(celery: Any) -> None:
    celery.hub = None
    celery.on_send_event_buffered()

"""A worker process notices that its broker is silent, has its connections made anew, and says so once."""

from __future__ import annotations

import logging

import pytest

from doteval.worker.broker_watch import BrokerWatch, ReceivedFrames
from tests.support.clock import Clock


class Connections:
    """Counts how often connections are made anew."""

    def __init__(self) -> None:
        self.renewed = 0

    def renew(self) -> int:
        self.renewed += 1
        return 3


@pytest.fixture
def connections() -> Connections:
    return Connections()


@pytest.fixture
def watch(connections: Connections, clock: Clock) -> BrokerWatch:
    return BrokerWatch(10.0, renew=connections.renew, clock=clock)


def test_connections_are_renewed_after_too_long_a_silence(
    watch: BrokerWatch, connections: Connections, clock: Clock
) -> None:
    watch.begin()
    for answers, seconds in ((True, 1.0), (True, 9.9), (False, 9.9)):
        clock.now += seconds
        watch.check()
        if answers:
            watch.heard()
        assert (watch.silence(), connections.renewed) == (None, 0)
    clock.now += 0.1
    watch.check()
    assert (watch.silence(), connections.renewed) == (10.0, 1)


def test_they_are_renewed_again_while_the_silence_lasts(
    watch: BrokerWatch, connections: Connections, clock: Clock
) -> None:
    watch.begin()
    for _ in range(35):
        clock.now += 1.0
        watch.check()
    assert (watch.silence(), connections.renewed) == (35.0, 3)
    watch.heard()
    assert watch.silence() is None


def test_the_silence_and_its_end_are_logged_once(
    watch: BrokerWatch, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "doteval.worker")
    watch.begin()
    for _ in range(3):
        clock.now += 12.0
        watch.check()
    watch.heard()
    for _ in range(2):
        watch.check()
        clock.now += 1.0
    assert caplog.messages == [
        "the broker has not answered this worker process for 12 s; it makes 3 connections anew",
        "the broker answers again, after 36 s",
    ]


@pytest.mark.parametrize("begun", [False, True])
def test_nothing_is_expected_of_a_broker_that_nobody_asks(
    watch: BrokerWatch, connections: Connections, clock: Clock, begun: bool
) -> None:
    """Before Celery has started, and while the last rows are running."""
    if begun:
        watch.begin()
        watch.end()
        watch.heard()
    clock.now += 100.0
    watch.check()
    assert (watch.silence(), connections.renewed) == (None, 0)


class RabbitConnection:
    """What py-amqp knows of a connection."""

    heartbeat = 8.0
    bytes_recv = 5


def test_rabbitmq_is_heard_while_frames_come(clock: Clock) -> None:
    used: list[RabbitConnection | None] = [None]
    watch = BrokerWatch(10.0, renew=lambda: 0, clock=clock)
    watch.listen = ReceivedFrames(lambda: used[0], clock=clock)

    def silence_after(seconds: int, *, frames: bool) -> float | None:
        for _ in range(seconds):
            clock.now += 1.0
            if frames and used[0] is not None:
                used[0].bytes_recv += 1
            watch.check()
        return watch.silence()

    watch.begin()
    # It does not connect.
    assert silence_after(12, frames=True) == 12.0
    used[0] = RabbitConnection()
    assert silence_after(30, frames=True) is None
    assert silence_after(7, frames=False) is None
    # The silence counts from the moment at which a heartbeat is missing.
    assert silence_after(20, frames=False) == 20.0
    # A new connection is made, over which nothing comes but the handshake.
    used[0] = RabbitConnection()
    assert silence_after(1, frames=False) is None
    assert silence_after(7 + 10, frames=False) == 10.0
    # Without heartbeats, nothing is expected to come.
    used[0].heartbeat = 0.0
    assert silence_after(100, frames=False) is None

"""A worker process notices that its broker is silent, has its connections made anew, and says so once."""

from __future__ import annotations

import logging

import pytest

from doteval.worker.broker_watch import BrokerWatch
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

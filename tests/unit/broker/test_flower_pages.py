"""Flower's pages have the lengths of queues from doteval, and its log has one line for each outage of the broker."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading

import pytest
import redis
from kombu.exceptions import OperationalError
from tornado.web import HTTPError

from doteval.broker.flower_pages import OutageLog, QueueLengths
from doteval.broker.publisher import Publisher
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError
from tests.support.project import wait_until

BROKER = Broker("redis://:hush@127.0.0.1:6379/0")


def record(name: str, message: str, *args: object, raised: Exception | None = None) -> logging.LogRecord:
    exc_info = None if raised is None else (type(raised), raised, None)
    return logging.LogRecord(name, logging.ERROR, "", 0, message, args, exc_info)


def test_an_outage_is_logged_when_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doteval.broker.flower_pages._LOOK_SECONDS", 0.01)
    answers = threading.Event()

    def ask() -> None:
        if not answers.is_set():
            raise BrokerError("away")

    caplog.set_level(logging.INFO, "doteval.flower")
    outages = OutageLog(BROKER, ask)
    for outage in (1, 2):
        answers.clear()
        silence = redis.TimeoutError("Timeout reading from socket")
        first = record("flower.inspector", "Inspect method %s failed: %s", "stats", silence)
        assert outages(first)
        assert first.getMessage() == (
            "the broker redis://:***@127.0.0.1:6379/0 does not answer: nothing came for 10 s. Flower goes on trying"
        )
        for each in (
            record("flower.inspector", "Inspect method %s failed: %s", "conf", silence),
            record("flower.events", "Failed to enable events: %s", OperationalError("refused")),
            record("tornado.application", "Exception in callback", raised=redis.ConnectionError("refused")),
            record("kombu.mixins", "trying again in %s seconds: %r", 2.0, OSError(113, "No route to host")),
        ):
            assert not outages(each)
        # What is not about the broker is logged as it is.
        other = record("flower.events", "Failed to load state from '%s': %s", "flower.db", PermissionError("denied"))
        assert outages(other)
        assert "flower.db" in other.getMessage()
        answers.set()
        wait_until(lambda count=outage: len(caplog.messages) == count, what="the end of the outage")
    assert caplog.messages == ["the broker answers again"] * 2


def test_a_page_whose_broker_is_away_has_a_status(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    publisher = Publisher(Broker(f"redis://127.0.0.1:{port}/0"), "doteval")
    with pytest.raises(HTTPError) as raised:
        asyncio.run(QueueLengths(publisher).queues(["doteval"]))
    assert raised.value.status_code == 503
    # Flower logs it as the error of a page.
    outages = OutageLog(BROKER, lambda: None)
    assert outages(failed := record("flower.views.broker", "Unable to get queues: '%s'", raised.value))
    assert "cannot be reached" in failed.getMessage()

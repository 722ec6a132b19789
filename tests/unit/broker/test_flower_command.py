"""Flower starts with bounded memory, and with a password, never on its command line, if others can reach it."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from flower.events import EventsState

from doteval.broker.flower import MOST_TASKS, FlowerOptions, flower_arguments, serve_flower
from doteval.broker.flower_link import LinkingLoader
from doteval.core.broker_url import Broker
from doteval.errors import BrokerError, UsageError

BROKER = Broker("redis://:hush@127.0.0.1:6379/0")
# Row tasks that Flower keeps in these tests.
KEPT = 100


@pytest.mark.parametrize("address", ["0.0.0.0", "10.0.0.7", "::", "host.example"])
def test_an_address_that_other_machines_reach_needs_a_password(address: str) -> None:
    with pytest.raises(UsageError, match="stop your workers"):
        FlowerOptions(BROKER, address=address)
    FlowerOptions(BROKER, address=address, auth="user:password")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_a_loopback_address_needs_no_password(address: str) -> None:
    FlowerOptions(BROKER, address=address)


@pytest.mark.parametrize("auth", ["", "user", "user:", ":password", "one:a,two:b"])
def test_an_invalid_password_is_refused_without_being_shown(auth: str) -> None:
    with pytest.raises(UsageError) as refused:
        FlowerOptions(BROKER, auth=auth)
    assert "password" not in refused.value.message or "user:password" not in refused.value.message


def test_the_command_line_holds_no_password() -> None:
    words = " ".join(flower_arguments(FlowerOptions(BROKER, auth="user:hush-hush", state=Path("flower.db"))))
    assert "hush" not in words
    assert "--persistent=True" in words
    assert f"--max_tasks={MOST_TASKS}" in words


def test_its_pages_link_to_the_view() -> None:
    from flower.urls import settings

    loader = LinkingLoader(settings["template_path"], 'https://view.example/?a={{1}}&b="')
    bar = loader.load("navbar.html").code
    assert "https://view.example/?a=%7B%7B1}}&amp;b=&quot;" in bar
    assert ">Experiments</a>" in bar
    # The other templates are Flower's own.
    assert "view.example" not in loader.load("base.html").code


def test_a_broker_that_takes_connections_and_does_not_answer_ends_the_command() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        broker = Broker(f"redis://127.0.0.1:{silent.getsockname()[1]}/0?socket_timeout=0.2")
        with pytest.raises(BrokerError, match=r"does not answer: nothing came for 0\.2 s"):
            serve_flower(FlowerOptions(broker))


def test_memory_is_bounded_by_the_number_of_kept_tasks() -> None:
    """Four times as many row tasks take no more memory in Flower's state. benchmarks/ measures the whole process."""
    state = EventsState(max_tasks_in_memory=KEPT)
    # Otherwise the peak would depend on when Python happens to collect garbage.
    gc.disable()
    tracemalloc.start()
    try:
        # Peaks, since Flower clears its tasks now and then.
        feed(state, 0, 4 * KEPT)
        before = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        feed(state, 4 * KEPT, 16 * KEPT)
        after = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.enable()
    assert len(state.tasks) == KEPT
    assert after < before * 1.1


def feed(state: Any, first: int, last: int) -> None:
    for number in range(first, last):
        if number % KEPT == 0:
            gc.collect()
        uid = f"{number:08d}-0000-0000-0000-000000000000"
        common = {"uuid": uid, "hostname": "worker-1@host", "timestamp": 1e9, "local_received": 1e9, "utcoffset": 0}
        received = {"name": "eval_chat", "args": f"r{number}-{number} demo", "kwargs": "", "retries": 0}
        state.event({"type": "task-received", "clock": 2 * number, **common, **received})
        result = {"result": "'100 rows, 2 failed'", "runtime": 1.0}
        state.event({"type": "task-succeeded", "clock": 2 * number + 1, **common, **result})

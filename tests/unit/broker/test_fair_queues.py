"""Lanes: their names, and the order in which a worker process asks them for row tasks."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest

from doteval.broker.fair_queues import (
    FAIR_QUEUES,
    FairQueueCycle,
    Priority,
    fair_queue_name,
    fair_queue_names,
    fair_queues_of,
    priority_of,
)
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.worker.priority_pool import SPARE, PriorityPool, in_hand


def test_the_first_lane_has_the_name_of_the_queue_and_all_are_different() -> None:
    names = fair_queue_names("team.evals")
    assert names[0] == "team.evals"
    assert len(set(names)) == FAIR_QUEUES


def test_every_lane_has_one_priority() -> None:
    assert sorted(number for priority in Priority for number in fair_queues_of(priority)) == list(range(FAIR_QUEUES))
    assert priority_of(0) is Priority.NORMAL
    assert all(fair_queues_of(priority) for priority in Priority)


@pytest.mark.parametrize("queue", ["q", "q.high", "low", "team.low1"])
def test_lanes_are_asked_in_turn_high_ones_first_low_ones_last(queue: str) -> None:
    """Whatever the name of the queue looks like."""
    cycle = FairQueueCycle()
    cycle.update(fair_queue_names(queue))
    waiting = {fair_queue_name(queue, number): 6 for number in range(FAIR_QUEUES)}
    order = []
    while any(waiting.values()):
        taken = next(name for name in cycle.consume(FAIR_QUEUES) if waiting[name])
        waiting[taken] -= 1
        cycle.rotate(taken)
        order.append(taken)
    for priority in Priority:
        names = [fair_queue_name(queue, number) for number in fair_queues_of(priority)]
        served, order = order[: 6 * len(names)], order[6 * len(names) :]
        # In every round each of them once.
        rounds = [served[start : start + len(names)] for start in range(0, len(served), len(names))]
        assert all(Counter(each) == Counter(names) for each in rounds)


def test_telling_the_lanes_again_keeps_whose_turn_it_is() -> None:
    cycle = FairQueueCycle()
    cycle.update(fair_queue_names("q"))
    cycle.rotate("q")
    cycle.update(fair_queue_names("q"))
    assert cycle.consume(FAIR_QUEUES)[len(fair_queues_of(Priority.HIGH))] == "q~1"


def test_what_the_broker_sends_is_begun_by_priority_and_then_as_it_came() -> None:
    pool = PriorityPool(limit=SPARE + 1)
    began: list[str] = []
    free = threading.Event()

    def run(_: str, name: str, *__: object) -> None:
        began.append(name)
        assert free.wait(30)

    def send(name: str, number: int, first: int) -> None:
        request = {"delivery_info": {"routing_key": fair_queue_name("q", number)}}
        body = json.dumps([["uid", first, first + 9], {}, {}]).encode()
        pool.on_apply(run, (TASK_NAME, name, request, body), {}, callback=lambda _: None)

    (normal, other, *_), (high, *_), (low, *_) = (
        fair_queues_of(priority) for priority in (Priority.NORMAL, Priority.HIGH, Priority.LOW)
    )
    send("running", low, 0)
    while not began:
        time.sleep(0.01)
    for place, (name, number) in enumerate(
        [("low", low), ("normal", normal), ("high", high), ("other", other), ("high again", high)], 1
    ):
        send(name, number, 10 * place)
    # Those that wait are held by this process too.
    assert in_hand() == [RowTask("uid", first, first + 9) for first in range(0, 60, 10)]
    free.set()
    pool.executor.shutdown()
    assert began == ["running", "high", "high again", "normal", "other", "low"]
    assert in_hand() == []

"""Lanes: their names, and the order in which a worker process asks them for row tasks."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter

import pytest

from doteval.broker.fair_queues import LANES, LaneCycle, Priority, lane_name, lane_names, lanes_of, priority_of
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.worker.priority_pool import SPARE, LanePool, in_hand


def test_the_first_lane_has_the_name_of_the_queue_and_all_are_different() -> None:
    names = lane_names("team.evals")
    assert names[0] == "team.evals"
    assert len(set(names)) == LANES


def test_every_lane_has_one_priority() -> None:
    assert sorted(lane for priority in Priority for lane in lanes_of(priority)) == list(range(LANES))
    assert priority_of(0) is Priority.NORMAL
    assert all(lanes_of(priority) for priority in Priority)


@pytest.mark.parametrize("queue", ["q", "q.high", "low", "team.low1"])
def test_lanes_are_asked_in_turn_high_ones_first_low_ones_last(queue: str) -> None:
    """Whatever the name of the queue looks like."""
    cycle = LaneCycle()
    cycle.update(lane_names(queue))
    waiting = {lane_name(queue, lane): 6 for lane in range(LANES)}
    order = []
    while any(waiting.values()):
        taken = next(name for name in cycle.consume(LANES) if waiting[name])
        waiting[taken] -= 1
        cycle.rotate(taken)
        order.append(taken)
    for priority in Priority:
        lanes = [lane_name(queue, lane) for lane in lanes_of(priority)]
        served, order = order[: 6 * len(lanes)], order[6 * len(lanes) :]
        # In every round each of them once.
        rounds = [served[start : start + len(lanes)] for start in range(0, len(served), len(lanes))]
        assert all(Counter(each) == Counter(lanes) for each in rounds)


def test_telling_the_lanes_again_keeps_whose_turn_it_is() -> None:
    cycle = LaneCycle()
    cycle.update(lane_names("q"))
    cycle.rotate("q")
    cycle.update(lane_names("q"))
    assert cycle.consume(LANES)[len(lanes_of(Priority.HIGH))] == "q~1"


def test_what_the_broker_sends_is_begun_by_priority_and_then_as_it_came() -> None:
    pool = LanePool(limit=SPARE + 1)
    began: list[str] = []
    free = threading.Event()

    def run(_: str, name: str, *__: object) -> None:
        began.append(name)
        assert free.wait(30)

    def send(name: str, lane: int, first: int) -> None:
        request = {"delivery_info": {"routing_key": lane_name("q", lane)}}
        body = json.dumps([["uid", first, first + 9], {}, {}]).encode()
        pool.on_apply(run, (TASK_NAME, name, request, body), {}, callback=lambda _: None)

    (normal, other, *_), (high, *_), (low, *_) = (
        lanes_of(priority) for priority in (Priority.NORMAL, Priority.HIGH, Priority.LOW)
    )
    send("running", low, 0)
    while not began:
        time.sleep(0.01)
    for number, (name, lane) in enumerate(
        [("low", low), ("normal", normal), ("high", high), ("other", other), ("high again", high)], 1
    ):
        send(name, lane, 10 * number)
    # Those that wait are held by this process too.
    assert in_hand() == [RowTask("uid", first, first + 9) for first in range(0, 60, 10)]
    free.set()
    pool.executor.shutdown()
    assert began == ["running", "high", "high again", "normal", "other", "low"]
    assert in_hand() == []

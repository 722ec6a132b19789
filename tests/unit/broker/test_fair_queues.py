"""Fair queues: their names, and the order in which a worker process fetches from them."""

from __future__ import annotations

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


def test_names_are_unique_and_the_first_is_the_queue_name() -> None:
    names = fair_queue_names("team.evals")
    assert names[0] == "team.evals"
    assert len(set(names)) == FAIR_QUEUES


def test_every_fair_queue_has_one_priority() -> None:
    assert sorted(number for priority in Priority for number in fair_queues_of(priority)) == list(range(FAIR_QUEUES))
    assert priority_of(0) is Priority.NORMAL
    assert all(fair_queues_of(priority) for priority in Priority)


@pytest.mark.parametrize("queue", ["q", "q.high", "low", "team.low1"])
def test_fetch_order_is_by_priority_and_then_round_robin(queue: str) -> None:
    # Whatever the name of the queue looks like.
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
        # Every round serves each of them once.
        rounds = [served[start : start + len(names)] for start in range(0, len(served), len(names))]
        assert all(Counter(each) == Counter(names) for each in rounds)


def test_updating_the_names_keeps_the_order() -> None:
    cycle = FairQueueCycle()
    cycle.update(fair_queue_names("q"))
    cycle.rotate("q")
    cycle.update(fair_queue_names("q"))
    assert cycle.consume(FAIR_QUEUES)[len(fair_queues_of(Priority.HIGH))] == "q~1"

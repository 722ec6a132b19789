"""A worker process begins the most urgent row tasks first, also with a broker that sends all of them at once."""

from __future__ import annotations

import json
import threading
import time

from doteval.broker.fair_queues import Priority, fair_queue_name, fair_queues_of
from doteval.broker.messages import TASK_NAME, RowTask
from doteval.worker.priority_pool import SPARE, PriorityPool, received_tasks


def test_received_tasks_begin_by_priority_and_then_in_order_of_arrival() -> None:
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
    # Tasks that wait for a thread count as received.
    assert received_tasks() == [RowTask("uid", first, first + 9) for first in range(0, 60, 10)]
    free.set()
    pool.executor.shutdown()
    assert began == ["running", "high", "high again", "normal", "other", "low"]
    assert received_tasks() == []

"""Row tasks by priority where the broker sends messages of all lanes at once.

Redis is asked for messages, in the order of `doteval.broker.fair_queues.FairQueueCycle`. RabbitMQ sends them: a worker
process gets as many of every lane as its Celery concurrency says, whatever else waits. So it runs a few less
at once, and begins with the most urgent of those that it has in hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from queue import PriorityQueue
from typing import Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult, TaskPool
from kombu.utils.json import loads

from doteval.broker.fair_queues import urgency
from doteval.broker.messages import TASK_NAME, RowTask

# Messages of each lane that a worker process has beyond those that it runs. When one ends, the next of its
# lane is here already, and none of a less urgent lane comes in between.
SPARE = 2


# By arrival: row tasks that came and have not ended, those included that no thread has begun.
_in_hand: dict[int, RowTask] = {}


def in_hand() -> list[RowTask]:
    """The row tasks that this process was sent and has not ended, whether they have begun or not.

    None are known where another pool is used: with Redis a process holds none but those that it runs.
    """
    return list(_in_hand.values())


class PriorityPool(TaskPool):  # type: ignore[misc] # Celery has no types
    """Celery's pool of threads, whose next task is the most urgent one that waits, and of these the first."""

    def __init__(self, limit: int | None = None, *arguments: Any, **options: Any) -> None:
        super().__init__(max(1, (limit or 1) - SPARE), *arguments, **options)
        self._waiting: PriorityQueue[tuple[int, int, Callable[[], Any]]] = PriorityQueue()
        self._arrivals = itertools.count()

    def on_apply(self, target: Any, args: Any = None, *more: Any, **options: Any) -> ApplyResult:
        # What Celery says of a task: its name, its id, the request, the message's body, ...
        name, _, request, body, *_ = args
        arrival = next(self._arrivals)
        if name == TASK_NAME:
            _in_hand[arrival] = RowTask(*loads(body)[0])  # type: ignore[no-untyped-call] # kombu has no types

        def call() -> Any:
            try:
                return apply_target(target, args, *more, **options)
            finally:
                _in_hand.pop(arrival, None)

        self._waiting.put((urgency(request["delivery_info"]["routing_key"]), arrival, call))
        # One for each that waits; which one it is, is decided when a thread is free.
        return ApplyResult(self.executor.submit(self._run_next))

    def _run_next(self) -> Any:
        _, _, call = self._waiting.get_nowait()
        return call()

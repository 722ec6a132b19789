"""Runs row tasks by priority where the broker sends the messages of all fair queues at once.

With Redis a worker process fetches messages in the order of `doteval.broker.fair_queues.FairQueueCycle`. RabbitMQ sends
them: a worker process receives as many messages of every fair queue as its Celery concurrency allows. So it runs a few
less at once, and begins with the most urgent ones that it has received.
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

# Messages of each fair queue that a worker process receives beyond those that it runs. When one ends, the next of its
# queue is here already, and none of a less urgent queue comes in between.
SPARE = 2


# By arrival: row tasks that were received and have not ended.
_received: dict[int, RowTask] = {}


def received_tasks() -> list[RowTask]:
    """The row tasks that this process has received and not ended, also those that wait for a thread.

    Empty with another pool: with Redis a process receives only row tasks that it runs at once.
    """
    return list(_received.values())


class PriorityPool(TaskPool):  # type: ignore[misc] # Celery has no types
    """Celery's pool of threads, but the next task is the most urgent one that waits, and of these the first."""

    def __init__(self, limit: int | None = None, *arguments: Any, **options: Any) -> None:
        super().__init__(max(1, (limit or 1) - SPARE), *arguments, **options)
        self._waiting: PriorityQueue[tuple[int, int, Callable[[], Any]]] = PriorityQueue()
        self._arrivals = itertools.count()

    def on_apply(self, target: Any, args: Any = None, *more: Any, **options: Any) -> ApplyResult:
        """Queue a task. Celery passes the task's name, its id, the request, the message's body, ..."""
        name, _, request, body, *_ = args
        arrival = next(self._arrivals)
        if name == TASK_NAME:
            _received[arrival] = RowTask.from_arguments(loads(body)[0])  # type: ignore[no-untyped-call] # kombu

        def call() -> Any:
            try:
                return apply_target(target, args, *more, **options)
            finally:
                _received.pop(arrival, None)

        self._waiting.put((urgency(request["delivery_info"]["routing_key"]), arrival, call))
        # One call for each task that waits. Which task it runs is decided when a thread is free.
        return ApplyResult(self.executor.submit(self._run_next))

    def _run_next(self) -> Any:
        _, _, call = self._waiting.get_nowait()
        return call()

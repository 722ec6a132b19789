"""A queue in memory. `tests/integration/broker/test_publisher.py` checks that it keeps the contract of `Publisher`."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from doteval.broker.messages import RowTask
from doteval.errors import BrokerError


class FakeQueue:
    """Keeps row tasks in memory. With `unreachable` it fails as an unreachable broker does."""

    def __init__(self, queue: str = "doteval") -> None:
        self.queue = queue
        self.is_pull_based = True
        self.unreachable = False
        self.published: list[RowTask] = []
        self._waiting: list[tuple[str, int, RowTask]] = []
        self._lock = threading.Lock()

    def publish(
        self,
        tasks: Iterable[RowTask],
        *,
        experiment: str,
        evaluation: str,
        fair_queue: int = 0,
        queue: str | None = None,
    ) -> int:
        self._check()
        count = 0
        for task in tasks:
            with self._lock:
                self.published.append(task)
                self._waiting.append((queue or self.queue, fair_queue, task))
            count += 1
        return count

    def queued(self, fair_queue: int | None = None, *, queue: str | None = None) -> int:
        self._check()
        return sum(name == (queue or self.queue) and fair_queue in (None, each) for name, each, _ in self._waiting)

    def fair_queues_of(self, uid: str) -> set[int]:
        """The fair queues on which row tasks of an evaluation wait."""
        return {number for _, number, task in self._waiting if task.evaluation_uid == uid}

    def queues_of(self, uid: str) -> set[str]:
        """The queues in which row tasks of an evaluation wait."""
        return {queue for queue, _, task in self._waiting if task.evaluation_uid == uid}

    def take(self, queue: str | None = None) -> list[RowTask]:
        """Take all waiting row tasks, of one queue or of all, as workers do."""
        with self._lock:
            taken = [each for each in self._waiting if queue in (None, each[0])]
            self._waiting = [each for each in self._waiting if queue not in (None, each[0])]
        return [task for _, _, task in taken]

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.unreachable:
            raise BrokerError("the broker cannot be reached")

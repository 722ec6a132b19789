"""HeldTasks: the row tasks that this process has in hand, and whether those that come again are in another's."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from doteval.broker.messages import RowTask
from doteval.core.liveness import BEAT_SECONDS
from doteval.store import HeldRange, Store, WorkerState
from doteval.worker.errors import GiveBackError


class HeldTasks:
    """The hands of the worker process `worker_id`. `patiently` reads from the store as soon as it is there.

    `on_empty` is called when they hold nothing more.
    """

    def __init__(
        self,
        worker_id: int,
        *,
        patiently: Callable[[Callable[[Store], Any]], Any],
        leaving: threading.Event,
        on_empty: Callable[[], None],
    ) -> None:
        self._worker_id = worker_id
        self._patiently = patiently
        self._leaving = leaving
        self._on_empty = on_empty
        self._held: dict[object, HeldRange] = {}
        self._leases: set[str] = set()

    @contextlib.contextmanager
    def hold(self, task: RowTask, lease: str | None) -> Iterator[None]:
        """Have a row task in hand. `lease` is the tag by which the broker knows its message."""
        held = object()
        self._held[held] = HeldRange(task.evaluation_uid, task.first, task.last)
        if lease is not None:
            self._leases.add(lease)
        try:
            yield
        finally:
            if lease is not None:
                self._leases.discard(lease)
            del self._held[held]
            if not self._held:
                self._on_empty()

    def ranges(self) -> list[HeldRange]:
        """The rows of the row tasks in hand."""
        return list(self._held.values())

    def leases(self) -> list[str]:
        """The tags of their messages, those that have one."""
        return list(self._leases)

    def are_good(self, task: RowTask) -> bool:
        """Whether this process, or another live one, holds the rows of a message that came again.

        A broker that loses a connection hands out everything again that was sent on it, although the
        worker process may be well and working on it.
        """
        mine = HeldRange(task.evaluation_uid, task.first, task.last)
        if mine in self._held.values():
            return True
        asked = time.monotonic()

        def others(store: Store) -> list[WorkerState]:
            return [worker for worker in store.workers.live() if worker.id != self._worker_id]

        # What the others hold is known when each of them has told it since.
        live = self._patiently(others)
        while any(worker.age > time.monotonic() - asked for worker in live):
            if self._leaving.wait(BEAT_SECONDS / 4):
                raise GiveBackError("leaving")
            live = self._patiently(others)
        return any(mine in worker.holding and worker.state == "ready" for worker in live)

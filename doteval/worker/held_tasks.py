"""Tracks the row tasks that this process holds and detects redelivered ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from doteval.broker.messages import RowTask
from doteval.core import clocks
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.states import WorkerPhase
from doteval.store import HeldRange, Store, WorkerState
from doteval.worker.row_task_errors import GiveBackError


class HeldTasks:
    """The row tasks that this worker process has received and not acknowledged.

    own_id: returns its id in the store.
    read_store: reads from the store, and retries while it is unavailable.
    leaving: set when the process leaves.
    on_empty: called when the process holds no row task any more.
    """

    def __init__(
        self,
        own_id: Callable[[], int],
        *,
        read_store: Callable[[Callable[[Store], Any]], Any],
        leaving: threading.Event,
        on_empty: Callable[[], None],
    ) -> None:
        self._own_id = own_id
        self._read_store = read_store
        self._leaving = leaving
        self._on_empty = on_empty
        self._held: dict[object, HeldRange] = {}
        # Row tasks that were given back while this process leaves. Celery 5.7 sends that to the broker once the rows in
        # flight have ended: if a dispatcher published these rows before, they would run twice when the broker delivers
        # the messages again.
        self._given_back: list[HeldRange] = []
        self._leases: set[str] = set()

    @contextlib.contextmanager
    def hold(self, task: RowTask, lease: str | None) -> Iterator[Sequence[HeldRange]]:
        """Hold a row task inside the block. `lease` is the broker's tag of its message, None if it has none.

        Yields the ranges of its evaluation that were held before. They share rows with it if others took this process
        for dead, and published its rows again.
        """
        held = object()
        before = [each for each in self._held.copy().values() if each.evaluation_uid == task.evaluation_uid]
        self._held[held] = HeldRange(task.evaluation_uid, task.first, task.last)
        if lease is not None:
            self._leases.add(lease)
        try:
            yield before
        except GiveBackError:
            if self._leaving.is_set():
                self._given_back.append(self._held[held])
            raise
        finally:
            if lease is not None:
                self._leases.discard(lease)
            del self._held[held]
            if not self._held:
                self._on_empty()

    def ranges(self) -> list[HeldRange]:
        """The rows of the held row tasks, and of those whose messages the broker gets back when this process ends."""
        return [*self._held.values(), *self._given_back]

    def leases(self) -> list[str]:
        """The tags of the held messages that have one."""
        return list(self._leases)

    def is_held(self, task: RowTask) -> bool:
        """Whether this process, or another live one, holds the rows of a redelivered message.

        A broker that loses a connection delivers again everything that was sent on it, although the worker process
        may be alive and running the rows. Waits until every other process has reported after this call began.

        Raises GiveBackError: if this process leaves meanwhile.
        """
        mine = HeldRange(task.evaluation_uid, task.first, task.last)
        if mine in self._held.values():
            return True
        asked = clocks.monotonic()

        def others(store: Store) -> list[WorkerState]:
            return [worker for worker in store.workers.live() if worker.id != self._own_id()]

        live = self._read_store(others)
        while any(worker.age > clocks.monotonic() - asked for worker in live):
            if self._leaving.wait(BEAT_SECONDS / 4):
                self._given_back.append(mine)
                raise GiveBackError("leaving")
            live = self._read_store(others)
        return any(mine in worker.holding and worker.state is WorkerPhase.READY for worker in live)

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


class Hold:
    """One row task that this process holds.

    before: the ranges of its evaluation that this process held before. They share rows with it if others took this
        process for dead, and published its rows again.
    whole: all rows of its message.
    ranges: those of them that this process runs or has run.
    """

    __slots__ = ("before", "ranges", "whole")

    def __init__(self, whole: HeldRange, before: Sequence[HeldRange]) -> None:
        self.whole = whole
        self.before = before
        self.ranges: Sequence[HeldRange] = (whole,)

    def keep(self, indexes: Sequence[int]) -> None:
        """Hold only the rows with these indexes, which are in ascending order: others may run the rest."""
        ranges: list[HeldRange] = []
        for index in indexes:
            if ranges and index == ranges[-1].last + 1:
                ranges[-1] = HeldRange(self.whole.evaluation_uid, ranges[-1].first, index)
            else:
                ranges.append(HeldRange(self.whole.evaluation_uid, index, index))
        self.ranges = ranges


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
        self._held: set[Hold] = set()
        # Row tasks that were given back while this process leaves. Celery 5.7 sends that to the broker once the rows in
        # flight have ended: if a dispatcher published these rows before, they would run twice when the broker delivers
        # the messages again.
        self._given_back: list[HeldRange] = []
        self._leases: set[str] = set()

    @contextlib.contextmanager
    def hold(self, task: RowTask, lease: str | None) -> Iterator[Hold]:
        """Hold a row task inside the block. `lease` is the broker's tag of its message, None if it has none."""
        before = [
            part for each in self._held.copy() for part in each.ranges if part.evaluation_uid == task.evaluation_uid
        ]
        held = Hold(HeldRange(task.evaluation_uid, task.first, task.last), before)
        self._held.add(held)
        if lease is not None:
            self._leases.add(lease)
        try:
            yield held
        except GiveBackError:
            if self._leaving.is_set():
                self._given_back.extend(held.ranges)
            raise
        finally:
            if lease is not None:
                self._leases.discard(lease)
            self._held.discard(held)
            if not self._held:
                self._on_empty()

    def ranges(self) -> list[HeldRange]:
        """The rows of the held row tasks, and of those whose messages the broker gets back when this process ends."""
        return [part for each in self._held.copy() for part in each.ranges] + self._given_back

    def messages(self) -> set[HeldRange]:
        """The rows of the messages of the held row tasks, also those that other processes run."""
        return {each.whole for each in self._held.copy()}

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
        if mine in self.messages():
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
        # The holder may have given some of the rows back. They are on their way, or count as lost and come again.
        return any(
            worker.state is WorkerPhase.READY and any(_overlap(mine, held) for held in worker.holding)
            for worker in live
        )


def _overlap(one: HeldRange, other: HeldRange) -> bool:
    return one.evaluation_uid == other.evaluation_uid and one.first <= other.last and other.first <= one.last

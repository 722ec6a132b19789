"""Detects lost rows: pending rows whose row tasks wait in no queue, and that no live worker process holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from doteval.coordination.task_sizing import MOST_ROWS
from doteval.core.experiments import Evaluation
from doteval.core.liveness import HELD_ROWS_FRESH_SECONDS, OBSERVATION_GAP_SECONDS, QUEUE_DRAINED_SECONDS
from doteval.store import RowRange, Store, WorkerState, held_by


class LostRows:
    """Detects rows of running evaluations that were published and lost.

    holders: the live worker processes that may hold rows of an evaluation
    clock: seconds that only ever grow
    """

    def __init__(
        self, store: Store, holders: Callable[[Evaluation], list[WorkerState]], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._holders = holders
        self._clock = clock
        # By evaluation: its publish cursor at the last look.
        self._cursors: dict[int, int] = {}
        # By evaluation: when its queue was first seen drained since the cursor moved, and when last.
        self._drained: dict[int, tuple[float, float]] = {}

    def detect(self, evaluation: Evaluation, cursor: int, queued: Callable[[], int]) -> bool:
        """Whether rows of an evaluation are lost. To be called every second or two, with its publish `cursor`.

        `queued` counts the messages that wait where those of the evaluation do.
        """
        # While rows are being published, perhaps by another process, workers may not have reported yet what they hold.
        moved = self._cursors.get(evaluation.id, cursor) != cursor
        self._cursors[evaluation.id] = cursor
        if not self._has_drained(evaluation, not moved and not queued() and self._may_be_lost(evaluation)):
            return False
        return self._are_lost(evaluation)

    def lost_among(self, indexes: Sequence[int], evaluation: Evaluation, queued: Callable[[], int]) -> list[int]:
        """Those of the rows that are lost, if only these were published of an evaluation. To be called as often."""
        live = self._holders(evaluation)
        pending: list[int] = []
        if indexes and have_reported(live) and not queued():
            pending = self._store.samples.pending(evaluation.id, indexes, waiting=not evaluation.config.batch)
        free = without_held([RowRange(each, each) for each in pending], held_by(live, evaluation.uid))
        return [each.first for each in free] if self._has_drained(evaluation, bool(free)) else []

    def _has_drained(self, evaluation: Evaluation, seems_so: bool) -> bool:
        """Whether the queue of an evaluation seems to be drained, and rows lost, for long enough."""
        if not seems_so:
            self._drained.pop(evaluation.id, None)
            return False
        now = self._clock()
        since, last = self._drained.get(evaluation.id, (now, now))
        if now - last > OBSERVATION_GAP_SECONDS:
            # The store or the broker was away, and workers could not report either.
            since = now
        if now - since < QUEUE_DRAINED_SECONDS:
            self._drained[evaluation.id] = (since, now)
            return False
        self._drained.pop(evaluation.id)
        return True

    def published(self, evaluation: Evaluation, cursor: int) -> None:
        """Remember where this process itself has moved the publish cursor to."""
        self._cursors[evaluation.id] = cursor

    def _may_be_lost(self, evaluation: Evaluation) -> bool:
        """Whether more rows are pending than live worker processes hold; rows that are not stored yet count too."""
        live = self._holders(evaluation)
        if not have_reported(live):
            return False
        held = self._store.rows.count_pending(evaluation.id, held_by(live, evaluation.uid))
        # Counted after the held rows, of which some complete meanwhile.
        pending = self._store.evaluations.by_uid(evaluation.uid).counts.pending
        return pending - (self._store.wanted.waiting(evaluation.id) if evaluation.config.batch else 0) > held

    def _are_lost(self, evaluation: Evaluation) -> bool:
        """Whether rows are pending that no live worker process holds. Reads all rows up to the first such one."""
        held = held_by(self._holders(evaluation), evaluation.uid)
        ranges = self._store.rows.pending_ranges(evaluation.id, MOST_ROWS)
        return any(without_held([each], held) for each in ranges)


def have_reported(live: Sequence[WorkerState]) -> bool:
    """Whether all live worker processes have reported of late which rows they hold.

    They cannot while the store accepts no writes, although it may still be read.
    """
    return all(worker.age <= HELD_ROWS_FRESH_SECONDS for worker in live)


def without_held(ranges: Sequence[RowRange], held: Sequence[RowRange]) -> list[RowRange]:
    """The ranges, or the parts of them, that are not `held`, which is in ascending order.

    >>> without_held([RowRange(0, 9)], [RowRange(3, 4)])
    [RowRange(first=0, last=2), RowRange(first=5, last=9)]
    """
    free: list[RowRange] = []
    for each in ranges:
        first = each.first
        for taken in held:
            if taken.last < first or taken.first > each.last:
                continue
            if taken.first > first:
                free.append(RowRange(first, taken.first - 1))
            first = taken.last + 1
        if first <= each.last:
            free.append(RowRange(first, each.last))
    return free

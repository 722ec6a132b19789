"""Gives rows back that this process holds and will not begin soon, so that other worker processes can run them.

A row that hangs, or that takes very long, occupies its slot. Once such rows occupy all slots of a process, the rows
behind them would stand still, although other processes may be idle. So they are published again, as new row tasks. A
row that has begun is never given back, so no row runs twice. The messages that brought the rows stay unacknowledged
until their other rows have ended: a broker that sends messages unasked would send more of them otherwise.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.results import Row
from doteval.core.wording import counted
from doteval.worker.held_tasks import Hold
from doteval.worker.prefetch import Prefetch, PrefetchedRows

logger = logging.getLogger("doteval.worker")

# Seconds for which this process is watched before rows are given back: several times what a row task should take, so
# that a process whose rows go on as expected gives nothing back.
WINDOW_SECONDS = 5.0
# Rows are given back if there are so many times more of them than began during that time.
_TIMES_BEGUN = 2


class UnbegunRowsQueue(Protocol):
    """What publishes rows again: a part of `doteval.coordination.dispatcher.Dispatcher`."""

    def has_queued(self, evaluation: Evaluation) -> bool: ...
    def publish_rows(self, evaluation: Evaluation, indexes: Iterable[int]) -> None: ...


class UnbegunRows:
    """The rows of one row task that have not begun. Safe to use from any thread.

    on_begun: called for each row that begins.
    """

    def __init__(
        self, evaluation: Evaluation, hold: Hold, prefetched: PrefetchedRows, on_begun: Callable[[str], None]
    ) -> None:
        self.evaluation = evaluation
        self.given_back = 0
        self._hold = hold
        self._prefetched = prefetched
        self._on_begun = on_begun
        self._lock = threading.Lock()
        self._parts: list[deque[Row]] = []
        # The indexes of rows of which a sample has begun. Their other samples run here too: a row task names rows only.
        self._begun: set[int] = set()

    @property
    def waiting(self) -> int:
        """The number of rows that could be given back."""
        with self._lock:
            return sum(row.index not in self._begun for part in self._parts for row in part)

    def begin(self, rows: Sequence[Row]) -> Iterator[Row]:
        """Yield rows that belong to the row task, each one as it begins, except those that are given back before."""
        waiting = deque(rows)
        with self._lock:
            self._parts.append(waiting)
        return self._each(waiting)

    def _each(self, waiting: deque[Row]) -> Iterator[Row]:
        while True:
            with self._lock:
                if not waiting:
                    return
                row = waiting.popleft()
                self._begun.add(row.index)
            self._on_begun(self.evaluation.uid)
            yield row

    def take_back(self) -> set[int]:
        """Have rows that have not begun begin here no more. Returns their indexes."""
        taken: set[int] = set()
        with self._lock:
            before = sum(map(len, self._parts))
            for part in self._parts:
                taken.update(row.index for row in part if row.index not in self._begun)
                kept = [row for row in part if row.index in self._begun]
                part.clear()
                part.extend(kept)
            rows = before - sum(map(len, self._parts))
            self.given_back += rows
        self._prefetched.give_back(rows)
        return taken

    def release(self) -> None:
        """Tell others that this process holds only those rows of the row task that have begun."""
        with self._lock:
            begun = sorted(self._begun)
        self._hold.keep(begun)


class GivingBack:
    """Gives rows back that this process will not begin soon.

    received: the row tasks that wait for a thread of Celery's pool.
    leaving: set when the process leaves, and gives everything back in any case.
    clock: returns seconds that never decrease.
    """

    def __init__(
        self,
        publisher: UnbegunRowsQueue,
        prefetch: Prefetch,
        leaving: threading.Event,
        *,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._publisher = publisher
        self._prefetch = prefetch
        self._leaving = leaving
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: list[UnbegunRows] = []
        # By evaluation: rows that have begun while the process is watched.
        self._begun: Counter[str] = Counter()
        # When the process was looked at while rows waited, and what had begun by then.
        self._looks: deque[tuple[float, Counter[str]]] = deque()

    @contextlib.contextmanager
    def watch(self, evaluation: Evaluation, hold: Hold, prefetched: PrefetchedRows) -> Iterator[UnbegunRows]:
        """Watch the rows of a row task during the block."""
        unbegun = UnbegunRows(evaluation, hold, prefetched, self._count)
        with self._lock:
            self._tasks.append(unbegun)
        try:
            yield unbegun
        finally:
            with self._lock:
                self._tasks.remove(unbegun)

    def check(self) -> None:
        """Give rows back if this process will not begin them soon. To be called every second; may wait for the broker.

        Raises BrokerError: when the broker is away. Rows that this process gave up then are published again like other
            lost rows.
        """
        now = self._clock()
        with self._lock:
            tasks = self._tasks.copy()
            begun = self._begun.copy()
        waiting: Counter[str] = Counter()
        for each in tasks:
            waiting[each.evaluation.uid] += each.waiting
        if not waiting.total() or self._leaving.is_set():
            self._looks.clear()
            return
        self._looks.append((now, begun))
        while len(self._looks) > 1 and now - self._looks[1][0] >= WINDOW_SECONDS:
            self._looks.popleft()
        since, before = self._looks[0]
        if now - since < WINDOW_SECONDS:
            return
        begun -= before
        for uid, rows in waiting.items():
            # Rows of another evaluation wait for their time slice while those of the one that runs go on.
            if rows and (not begun.total() or (begun[uid] and rows > _TIMES_BEGUN * begun[uid])):
                self._give_back([each for each in tasks if each.evaluation.uid == uid])

    def _give_back(self, tasks: Sequence[UnbegunRows]) -> None:
        evaluation = tasks[0].evaluation
        if self._publisher.has_queued(evaluation):
            # Processes that are idle have rows to fetch.
            return
        # Before they are on the queue, so that this process does not fetch them.
        self._prefetch.pause()
        self._looks.clear()
        indexes = sorted(set[int]().union(*(each.take_back() for each in tasks)))
        try:
            self._publisher.publish_rows(evaluation, indexes)
        finally:
            # Only now: rows that nobody holds and that are not on the queue count as lost.
            for each in tasks:
                each.release()
        logger.info(
            "%s given back to the queue, since rows take long here",
            counted(len(indexes), "row"),
        )

    def _count(self, uid: str) -> None:
        with self._lock:
            self._begun[uid] += 1

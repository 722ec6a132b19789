"""A worker process gives rows back that it will not begin soon, and fetches no others meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from doteval.broker.messages import RowTask
from doteval.core.results import Row
from doteval.errors import BrokerError
from doteval.store import HeldRange
from doteval.worker.giving_back import WINDOW_SECONDS, GivingBack, UnbegunRows
from doteval.worker.held_tasks import HeldTasks
from doteval.worker.prefetch import Prefetch


@dataclass
class Queue:
    """Where rows are published again."""

    queued: bool = False
    away: bool = False
    published: list[tuple[str, list[int]]] = field(default_factory=list)

    def has_queued(self, _: Any) -> bool:
        return self.queued

    def publish_rows(self, evaluation: Any, indexes: Iterable[int]) -> None:
        if self.away:
            raise BrokerError("away")
        self.published.append((evaluation.uid, list(indexes)))


class Process:
    """A worker process that begins rows when the test says so."""

    def __init__(self, stack: ExitStack) -> None:
        self.now = 100.0
        self.queue = Queue()
        self.prefetch = Prefetch()
        self.leaving = threading.Event()
        self.held = HeldTasks(lambda: 1, read_store=lambda read: [], leaving=self.leaving, on_empty=lambda: None)
        self.giving_back = GivingBack(self.queue, self.prefetch, self.leaving, clock=lambda: self.now)
        self._stack = stack

    def receive(self, uid: str, rows: range, *, samples: int = 1) -> tuple[UnbegunRows, Iterator[Row]]:
        hold = self._stack.enter_context(self.held.hold(RowTask(uid, rows[0], rows[-1]), None))
        prefetched = self._stack.enter_context(self.prefetch.rows(uid, len(rows) * samples))
        evaluation: Any = SimpleNamespace(uid=uid)
        unbegun = self._stack.enter_context(self.giving_back.watch(evaluation, hold, prefetched))
        return unbegun, unbegun.begin([Row(i, str(i), {}, sample=s) for i in rows for s in range(samples)])

    def watch(self, seconds: float = WINDOW_SECONDS) -> None:
        """Let time pass, with a look in every second."""
        for _ in range(int(seconds)):
            self.giving_back.check()
            self.now += 1
        self.giving_back.check()


@pytest.fixture
def process() -> Iterator[Process]:
    with ExitStack() as stack:
        yield Process(stack)


def test_rows_behind_one_that_hangs_are_given_back_and_held_no_more(process: Process) -> None:
    unbegun, rows = process.receive("a", range(10))
    assert next(rows).index == 0
    process.watch(WINDOW_SECONDS - 1)
    assert process.queue.published == []
    process.watch(2)
    assert process.queue.published == [("a", list(range(1, 10)))]
    assert process.held.ranges() == [HeldRange("a", 0, 0)]
    assert unbegun.given_back == 9
    assert list(rows) == []


def test_the_process_fetches_nothing_before_a_row_has_ended(process: Process) -> None:
    woken: list[None] = []
    process.prefetch.wake = lambda: woken.append(None)
    hold = process.held.hold(RowTask("a", 0, 9), None)
    with hold as held, process.prefetch.rows("a", 10) as prefetched:
        evaluation: Any = SimpleNamespace(uid="a")
        with process.giving_back.watch(evaluation, held, prefetched) as unbegun:
            rows = unbegun.begin([Row(i, str(i), {}) for i in range(10)])
            next(rows)
            process.watch()
            assert not process.prefetch.wants_more()
            prefetched.row_completed()
            assert woken
            assert process.prefetch.wants_more()


def test_rows_of_other_evaluations_behind_it_are_given_back_too(process: Process) -> None:
    _, rows = process.receive("a", range(1))
    process.receive("b", range(5))
    next(rows)
    process.watch()
    assert process.queue.published == [("b", list(range(5)))]


def test_nothing_is_given_back_while_rows_begin(process: Process) -> None:
    _, mine = process.receive("a", range(30))
    # These wait for the time slice of their evaluation.
    process.receive("b", range(100))
    for _ in range(9):
        assert [next(mine).index for _ in range(3)]
        process.watch(1)
    assert process.queue.published == []


def test_a_process_that_holds_far_more_than_it_begins_gives_rows_back(process: Process) -> None:
    _, rows = process.receive("a", range(100))
    while not process.queue.published:
        next(rows)
        process.watch(1)
    ((uid, indexes),) = process.queue.published
    assert uid == "a"
    assert indexes[-1] == 99
    assert len(indexes) > 90


@pytest.mark.parametrize("reason", ["queued", "leaving"])
def test_nothing_is_given_back_while_others_have_rows_or_the_process_leaves(process: Process, reason: str) -> None:
    _, rows = process.receive("a", range(10))
    next(rows)
    if reason == "queued":
        process.queue.queued = True
    else:
        process.leaving.set()
    process.watch(3 * WINDOW_SECONDS)
    assert process.queue.published == []
    assert [row.index for row in rows] == list(range(1, 10))


def test_other_samples_of_a_row_that_has_begun_stay(process: Process) -> None:
    """A row task names rows and no samples, so another process would run the sample that hangs as well."""
    _, rows = process.receive("a", range(3), samples=2)
    next(rows)
    process.watch()
    assert process.queue.published == [("a", [1, 2])]
    assert [(row.index, row.sample) for row in rows] == [(0, 1)]


def test_rows_that_cannot_be_published_count_as_lost(process: Process) -> None:
    _, rows = process.receive("a", range(10))
    next(rows)
    process.queue.away = True
    with pytest.raises(BrokerError):
        process.watch()
    assert process.held.ranges() == [HeldRange("a", 0, 0)]
    assert list(rows) == []

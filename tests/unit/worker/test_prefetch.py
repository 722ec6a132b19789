"""When a worker process asks for another row task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from doteval.worker.prefetch import Lot, Prefetch
from tests.support.clock import Clock


class Asking:
    """A prefetch, what it wakes, and lots that stay in hand until the test ends."""

    def __init__(self, stack: ExitStack) -> None:
        self.clock = Clock()
        self.prefetch = Prefetch(clock=self.clock)
        self.prefetch.wake = self._woken
        self.woken = 0
        self._stack = stack

    def _woken(self) -> None:
        self.woken += 1

    def take(self, rows: int, *, of: str = "a", at_once: int | None = None) -> Lot:
        lot = self._stack.enter_context(self.prefetch.lot(of, rows))
        lot.holds(rows, at_once)
        return lot


@pytest.fixture
def asking() -> Iterator[Asking]:
    with ExitStack() as stack:
        yield Asking(stack)


def test_an_idle_process_asks(asking: Asking) -> None:
    assert asking.prefetch.wants_more()


def test_twice_as_many_rows_as_run_at_once_are_enough(asking: Asking) -> None:
    asking.take(10, at_once=10)
    assert asking.prefetch.wants_more()
    asking.take(10)
    assert not asking.prefetch.wants_more()


def test_it_is_woken_once_when_rows_run_out(asking: Asking) -> None:
    lot = asking.take(12, at_once=5)
    assert not asking.prefetch.wants_more()
    lot.ended()
    lot.ended()
    assert asking.woken == 0
    lot.ended()
    assert asking.woken == 1
    lot.ended()
    assert asking.woken == 1
    assert asking.prefetch.wants_more()


def test_it_is_not_woken_while_nobody_was_refused(asking: Asking) -> None:
    lot = asking.take(1)
    lot.ended()
    assert asking.woken == 0


def test_it_is_woken_when_more_rows_may_run_than_was_thought(asking: Asking) -> None:
    lot = asking.take(10)
    assert not asking.prefetch.wants_more()
    lot.holds(10, at_once=100)
    assert asking.woken == 1
    assert asking.prefetch.wants_more()


def test_fewer_pending_rows_than_a_task_spans(asking: Asking) -> None:
    lot = asking.take(400, at_once=10)
    assert not asking.prefetch.wants_more()
    lot.holds(3)
    assert asking.woken == 1
    assert asking.prefetch.wants_more()


def test_rows_that_never_began_are_in_hand_no_more(asking: Asking) -> None:
    with asking.prefetch.lot("a", 50):
        assert not asking.prefetch.wants_more()
    assert asking.woken == 1
    assert asking.prefetch.wants_more()


def test_of_fast_rows_it_has_as_many_in_hand_as_end_while_it_asks(asking: Asking) -> None:
    lot = asking.take(2000)
    asking.prefetch.wants_more()
    for _ in range(1000):
        lot.ended()
    asking.clock.now += 1.0
    # A thousand rows a second: a quarter of a second's worth.
    assert not asking.prefetch.wants_more()
    for _ in range(750):
        lot.ended()
    assert asking.woken == 0
    lot.ended()
    assert asking.woken == 1
    asking.clock.now += 100.0
    # They were slow since.
    assert not asking.prefetch.wants_more()


def test_rows_of_an_evaluation_that_waits_for_its_turn_do_not_count(asking: Asking) -> None:
    mine = asking.take(10, of="a", at_once=2)
    mine.ended()
    others = asking.take(50, of="b", at_once=2)
    assert not asking.prefetch.wants_more()
    for _ in range(6):
        mine.ended()
    assert asking.woken == 1
    assert asking.prefetch.wants_more()
    # Its turn has come.
    others.ended()
    assert not asking.prefetch.wants_more()


def test_when_the_rows_of_the_one_that_ran_are_over_the_others_count(asking: Asking) -> None:
    with asking.prefetch.lot("a", 1) as mine:
        mine.ended()
    asking.take(50, of="b")
    assert not asking.prefetch.wants_more()

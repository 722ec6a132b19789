"""A worker process fetches another row task when its rows would soon run out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from doteval.worker.prefetch import Prefetch, PrefetchedRows


class Fetching:
    """A prefetch, how often it has woken the process, and rows that are held until the test ends."""

    def __init__(self, stack: ExitStack) -> None:
        self.prefetch = Prefetch()
        self.prefetch.wake = self._woken
        self.woken = 0
        self._stack = stack

    def _woken(self) -> None:
        self.woken += 1

    def hold(self, rows: int, *, of: str = "a", at_once: int | None = None) -> PrefetchedRows:
        held = self._stack.enter_context(self.prefetch.rows(of, rows))
        held.resize(rows, at_once)
        return held


@pytest.fixture
def fetching() -> Iterator[Fetching]:
    with ExitStack() as stack:
        yield Fetching(stack)


def test_an_idle_process_fetches(fetching: Fetching) -> None:
    assert fetching.prefetch.wants_more()


def test_twice_as_many_rows_as_run_at_once_are_enough(fetching: Fetching) -> None:
    fetching.hold(10, at_once=10)
    assert fetching.prefetch.wants_more()
    fetching.hold(10)
    assert not fetching.prefetch.wants_more()


def test_the_process_is_woken_once_when_rows_run_out(fetching: Fetching) -> None:
    rows = fetching.hold(12, at_once=5)
    assert not fetching.prefetch.wants_more()
    rows.row_completed()
    rows.row_completed()
    assert fetching.woken == 0
    rows.row_completed()
    assert fetching.woken == 1
    rows.row_completed()
    assert fetching.woken == 1
    assert fetching.prefetch.wants_more()


def test_the_process_is_not_woken_if_no_row_task_was_refused(fetching: Fetching) -> None:
    rows = fetching.hold(1)
    rows.row_completed()
    assert fetching.woken == 0


def test_the_process_is_woken_when_more_rows_may_run_at_once(fetching: Fetching) -> None:
    rows = fetching.hold(10)
    assert not fetching.prefetch.wants_more()
    rows.resize(10, at_once=100)
    assert fetching.woken == 1
    assert fetching.prefetch.wants_more()


def test_a_row_task_with_fewer_pending_rows_than_its_range(fetching: Fetching) -> None:
    rows = fetching.hold(400, at_once=10)
    assert not fetching.prefetch.wants_more()
    rows.resize(3)
    assert fetching.woken == 1
    assert fetching.prefetch.wants_more()


def test_rows_that_never_began_are_no_longer_held(fetching: Fetching) -> None:
    with fetching.prefetch.rows("a", 50):
        assert not fetching.prefetch.wants_more()
    assert fetching.woken == 1
    assert fetching.prefetch.wants_more()


def test_rows_of_an_evaluation_that_waits_do_not_count(fetching: Fetching) -> None:
    mine = fetching.hold(10, of="a", at_once=2)
    mine.row_completed()
    others = fetching.hold(50, of="b", at_once=2)
    assert not fetching.prefetch.wants_more()
    for _ in range(6):
        mine.row_completed()
    assert fetching.woken == 1
    assert fetching.prefetch.wants_more()
    # Now the other evaluation runs.
    others.row_completed()
    assert not fetching.prefetch.wants_more()


def test_rows_of_other_evaluations_count_once_the_running_one_has_none(fetching: Fetching) -> None:
    with fetching.prefetch.rows("a", 1) as mine:
        mine.row_completed()
    fetching.hold(50, of="b")
    assert not fetching.prefetch.wants_more()

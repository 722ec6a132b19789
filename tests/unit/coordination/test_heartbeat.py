"""The heartbeat does duties at their intervals, and soon when they are requested."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import SimpleNamespace

import pytest

from doteval.broker.messages import RowTask
from doteval.coordination.heartbeat import Heartbeat
from doteval.core.states import WorkerPhase
from doteval.store import HeldRange
from doteval.worker.held_tasks import HeldTasks
from doteval.worker.row_task_errors import GiveBackError

LONG = 3600.0
Begin = Callable[..., Heartbeat]


@pytest.fixture
def begin() -> Iterator[Begin]:
    with ExitStack() as stack:

        def begin(*duties: tuple[float, Callable[[], None]]) -> Heartbeat:
            heartbeat = Heartbeat(duties)
            heartbeat.start()
            stack.callback(heartbeat.stop)
            return heartbeat

        yield begin


def test_a_duty_is_done_again_and_again(begin: Begin) -> None:
    done = threading.Semaphore(0)
    begin((0.01, done.release), (LONG, lambda: None))
    assert all(done.acquire(timeout=60) for _ in range(3))


def test_a_requested_duty_is_done_soon_and_no_other(begin: Begin) -> None:
    done, others = threading.Semaphore(0), threading.Semaphore(0)
    heartbeat = begin((LONG, done.release), (LONG, others.release))
    heartbeat.soon(done.release)
    assert done.acquire(timeout=60)
    assert not others.acquire(blocking=False)


def test_a_duty_that_is_requested_while_it_is_done_is_done_once_more(begin: Begin) -> None:
    began, go_on = threading.Semaphore(0), threading.Event()

    def duty() -> None:
        began.release()
        go_on.wait(60)

    heartbeat = begin((LONG, duty))
    heartbeat.soon(duty)
    assert began.acquire(timeout=60)
    heartbeat.soon(duty)
    go_on.set()
    assert began.acquire(timeout=60)


def test_a_duty_that_fails_is_done_again(begin: Begin) -> None:
    tried = threading.Semaphore(0)

    def duty() -> None:
        tried.release()
        raise RuntimeError("planted")

    begin((0.01, duty))
    assert all(tried.acquire(timeout=60) for _ in range(2))


def test_on_empty_is_called_when_no_row_task_is_held() -> None:
    calls: list[None] = []
    held = HeldTasks(
        lambda: 1, read_store=lambda read: None, leaving=threading.Event(), on_empty=lambda: calls.append(None)
    )
    with held.hold(RowTask("u", 0, 9), "a"):
        with held.hold(RowTask("u", 10, 19), "b"):
            pass
        assert not calls
    assert len(calls) == 1


def test_rows_that_were_published_again_are_known_to_be_held() -> None:
    """Others took this process for dead. Of the ranges that they publish, some share rows with those held."""
    held = HeldTasks(lambda: 1, read_store=lambda read: None, leaving=threading.Event(), on_empty=lambda: None)
    with held.hold(RowTask("u", 0, 9), "a") as before_the_first:
        with held.hold(RowTask("v", 0, 9), "b") as of_another, held.hold(RowTask("u", 5, 14), "c") as before_the_second:
            holds = (before_the_first, of_another, before_the_second)
            assert [each.before for each in holds] == [[], [], [HeldRange("u", 0, 9)]]
        with held.hold(RowTask("u", 5, 14), "d") as later:
            assert later.before == [HeldRange("u", 0, 9)]
    with held.hold(RowTask("u", 0, 9), "e") as at_last:
        assert at_last.before == []


def test_a_process_holds_what_it_has_begun_of_a_row_task_of_which_it_gave_rows_back() -> None:
    alive = SimpleNamespace(
        id=2, age=0.0, state=WorkerPhase.READY, holding=[HeldRange("u", 4, 5), HeldRange("v", 8, 9)]
    )
    held = HeldTasks(lambda: 1, read_store=lambda read: [alive], leaving=threading.Event(), on_empty=lambda: None)
    with held.hold(RowTask("u", 10, 19), "a") as hold:
        hold.keep([10, 11, 14])
        assert held.ranges() == [HeldRange("u", 10, 11), HeldRange("u", 14, 14)]
        assert held.messages() == {HeldRange("u", 10, 19)}
        assert held.leases() == ["a"]
        # Its own message comes again, and that of a process which holds a part of it still; and two of nobody's.
        redelivered = [RowTask("u", 10, 19), RowTask("u", 0, 9), RowTask("u", 6, 9), RowTask("v", 0, 7)]
        assert [held.is_held(each) for each in redelivered] == [True, True, False, False]


@pytest.mark.parametrize(
    ("leaves", "error", "still_held"),
    [
        (True, GiveBackError("leaving"), [HeldRange("u", 6, 11)]),
        # The broker gets the message back at once, and the process goes on.
        (False, GiveBackError("the evaluation has failed"), []),
        # The message is acknowledged.
        (True, RuntimeError("planted"), []),
    ],
)
def test_a_row_task_given_back_is_held_until_the_process_has_left(
    leaves: bool, error: Exception, still_held: list[HeldRange]
) -> None:
    leaving = threading.Event()
    held = HeldTasks(lambda: 1, read_store=lambda read: None, leaving=leaving, on_empty=lambda: None)
    with held.hold(RowTask("u", 0, 5), None):
        if leaves:
            leaving.set()
        with pytest.raises(type(error)), held.hold(RowTask("u", 6, 11), "a"):
            raise error
        assert held.ranges() == [HeldRange("u", 0, 5), *still_held]
    assert held.ranges() == still_held
    assert held.leases() == []


def test_a_redelivered_row_task_that_a_leaving_process_does_not_begin_is_held() -> None:
    leaving = threading.Event()
    leaving.set()
    late = SimpleNamespace(age=60.0)
    held = HeldTasks(lambda: 1, read_store=lambda read: [late], leaving=leaving, on_empty=lambda: None)
    with pytest.raises(GiveBackError):
        held.is_held(RowTask("u", 6, 11))
    assert held.ranges() == [HeldRange("u", 6, 11)]

"""Signals that end a command: which are taken, what the first and the second do, and who has them afterwards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from doteval.core.stop_signals import SIGNALS, Stopped, StopSignals, exit_code
from tests.support.clock import Clock


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Start with the handlers of a fresh process, whatever runs the tests."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_takes_the_way_of_ctrl_c_and_has_its_own_exit_code(number: signal.Signals, code: int) -> None:
    with StopSignals() as signals, pytest.raises(KeyboardInterrupt) as raised:
        signal.raise_signal(number)
    assert isinstance(raised.value, Stopped)
    assert (raised.value.number, str(raised.value), signals.first) == (number, number.name, number)
    assert exit_code(raised.value) == code


def test_a_second_signal_raises_too_but_two_at_once_are_one() -> None:
    clock = Clock()
    with StopSignals(clock=clock):
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
        # As `timeout` and systemd do it.
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
        clock.now += 1
        with pytest.raises(Stopped, match="SIGHUP"):
            signal.raise_signal(signal.SIGHUP)


def test_the_first_signal_can_have_an_action_and_the_second_raises() -> None:
    clock, leaving = Clock(), threading.Event()
    with StopSignals(leaving.set, clock=clock) as signals:
        signal.raise_signal(signal.SIGHUP)
        assert leaving.is_set()
        clock.now += 1
        with pytest.raises(Stopped, match="SIGTERM"):
            signal.raise_signal(signal.SIGTERM)
    assert signals.first == signal.SIGHUP


def test_signals_that_are_ignored_or_handled_are_left_alone() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)
    assert (heard, signals.first) == ([signal.SIGTERM], signal.SIGINT)


def test_an_inner_block_takes_the_signals_and_gives_them_back() -> None:
    with StopSignals() as outer:
        inner_leaves = threading.Event()
        with StopSignals(inner_leaves.set):
            signal.raise_signal(signal.SIGTERM)
        assert inner_leaves.is_set()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGTERM)
    assert outer.first == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_another_thread_than_the_main_one_takes_nothing() -> None:
    found: list[object] = []

    def look() -> None:
        with StopSignals():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.SIG_DFL]


def test_a_forked_process_has_the_default_handlers() -> None:
    with StopSignals():
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM


def test_a_signal_to_a_process_that_was_just_forked_is_not_lost() -> None:
    # Without a pause: it may come before the child has its own handlers.
    with StopSignals(numbers=(signal.SIGTERM,)):
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while not (ended := os.waitpid(child, os.WNOHANG))[0]:
                assert time.monotonic() < deadline
            assert os.waitstatus_to_exitcode(ended[1]) == -signal.SIGTERM
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

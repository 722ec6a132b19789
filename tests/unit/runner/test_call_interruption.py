"""Sync calls that exceed their timeout are interrupted, on the main thread and on others."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from doteval.errors import RowTimeoutError
from doteval.runner.timeouts import within

Value = TypeVar("Value")


def on_this_thread(call: Callable[[], Value]) -> Value:
    return call()


def on_another_thread(call: Callable[[], Value]) -> Value:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(call).result()


both = pytest.mark.parametrize("on", [on_this_thread, on_another_thread])


def spin() -> None:
    while True:
        try:
            time.sleep(0.001)
        except Exception:  # noqa: BLE001 - that is the point
            raise AssertionError("an `except Exception` must not see it") from None


@both
def test_a_call_that_takes_too_long_is_interrupted(on: Callable[[Callable[[], object]], object]) -> None:
    begun = time.monotonic()
    with pytest.raises(RowTimeoutError, match=r"the row took longer than 0\.05 s"):
        on(lambda: within(0.05, spin))
    assert time.monotonic() - begun < 5


@both
def test_a_call_in_time_is_left_alone(on: Callable[[Callable[[], object]], object]) -> None:
    assert on(lambda: within(30, lambda: 7)) == 7
    assert on(lambda: within(None, lambda: 8)) == 8
    with pytest.raises(LookupError, match="its own"):
        on(lambda: within(30, lambda: _raise(LookupError("its own"))))
    with pytest.raises(TimeoutError, match="its own"):
        on(lambda: within(30, lambda: _raise(TimeoutError("its own"))))


@both
def test_a_call_that_swallows_the_interruption_is_interrupted_again(
    on: Callable[[Callable[[], object]], object],
) -> None:
    begun, swallowed = False, 0

    def stubborn() -> None:
        nonlocal begun, swallowed
        while True:
            try:
                begun = True
                while True:
                    time.sleep(0.001)
            except BaseException:
                swallowed += 1
                if swallowed == 2:
                    raise

    # On a busy machine the timeout may pass before the call has begun; then there was nothing to swallow.
    while not begun:
        with pytest.raises(RowTimeoutError):
            on(lambda: within(0.01, stubborn))
    assert swallowed == 2


def test_a_system_call_is_interrupted_on_the_main_thread() -> None:
    begun = time.monotonic()
    with pytest.raises(RowTimeoutError):
        within(0.05, lambda: time.sleep(30))
    assert time.monotonic() - begun < 5


def test_the_alarm_is_restored_and_one_in_use_is_not_touched() -> None:
    rung = threading.Event()
    before = signal.signal(signal.SIGALRM, lambda *_: rung.set())
    try:
        with pytest.raises(RowTimeoutError):
            within(0.02, lambda: time.sleep(30))
        assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(RowTimeoutError):
            within(0.02, spin)
        assert rung.wait(60)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_calls_that_end_at_their_timeout_are_interrupted_or_not_at_all() -> None:
    # The timeout falls on the end of the call: either may win, and nothing is raised afterwards.
    def call() -> str:
        try:
            within(0.005, lambda: time.sleep(0.005))
        except RowTimeoutError:
            outcome = "late"
        else:
            outcome = "in time"
        for _ in range(200):
            time.sleep(0)
        return outcome

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: call(), range(200)))
    assert set(outcomes) <= {"late", "in time"}
    assert len(outcomes) == 200


def test_no_watchdog_outlives_its_call_however_early_it_interrupts() -> None:
    # As in worker processes, the watchdog gets the processor before the call has begun.
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)

    def call() -> None:
        # The timeout passes before the call begins.
        for _ in range(500):
            with pytest.raises(RowTimeoutError):
                within(0.00005, spin)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    sys.setswitchinterval(before)
    left = [watch for watch in threading.enumerate() if watch.name == "doteval-timeout"]
    for watch in left:
        # Watchdogs that are called off end at once. Another would interrupt again and again.
        watch.join(60)
    assert not any(watch.is_alive() for watch in left)


def _raise(error: BaseException) -> None:
    raise error

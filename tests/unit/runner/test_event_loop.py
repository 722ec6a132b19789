"""The one event loop of a process survives what runs on it, and ends when it is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from doteval.runner.event_loop import LoopThread


@pytest.fixture
def loop() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


async def value() -> int:
    await asyncio.sleep(0)
    return 1


async def raising(error: BaseException) -> None:
    raise error


def test_a_coroutine_runs_on_the_loops_thread(loop: LoopThread) -> None:
    async def where() -> tuple[int, bool]:
        return threading.get_ident(), asyncio.get_running_loop() is loop.loop

    assert loop.wait_for(where()) == (loop.thread_id, True)
    assert loop.thread_id != threading.get_ident()


@pytest.mark.parametrize(
    "error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_an_error_of_a_coroutine_is_raised_and_the_loop_goes_on(loop: LoopThread, error: BaseException) -> None:
    for _ in range(2):
        with pytest.raises(type(error)):
            loop.wait_for(raising(error))
    assert loop.wait_for(value()) == 1


def test_system_exit_in_a_nested_task_reaches_the_task_that_awaits_it(loop: LoopThread) -> None:
    async def outer() -> str:
        try:
            await asyncio.create_task(raising(SystemExit("inner")))
        except SystemExit as error:
            return str(error)
        return "nothing"

    assert loop.wait_for(outer()) == "inner"


def test_a_stopped_loop_goes_on(loop: LoopThread) -> None:
    async def stop() -> int:
        asyncio.get_running_loop().stop()
        return await value()

    assert loop.wait_for(stop()) == 1
    assert loop.wait_for(value()) == 1


def test_waiting_on_the_loops_own_thread_is_refused(loop: LoopThread) -> None:
    async def wait_here() -> Any:
        return loop.wait_for(value())

    with pytest.raises(RuntimeError, match="name it as a parameter"):
        loop.wait_for(wait_here())


def test_the_lock_is_free_during_the_wait_and_held_again_after_it(loop: LoopThread) -> None:
    lock = threading.RLock()

    async def take() -> bool:
        # Runs on the loop's thread, and would wait for ever if the waiting thread kept the lock.
        with lock:
            return True

    with lock, lock:
        assert loop.wait_for(take(), lock)
        taken = []
        other = threading.Thread(target=lambda: taken.append(lock.acquire(blocking=False)))
        other.start()
        other.join()
        assert taken == [False]


def test_closing_cancels_tasks_and_lets_them_finish() -> None:
    loop = LoopThread()
    events: list[str] = []

    async def last() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("finished")

    started = threading.Event()

    def begin() -> None:
        events_task.append(loop.loop.create_task(last()))
        loop.loop.call_soon(started.set)

    events_task: list[asyncio.Task[None]] = []
    loop.soon(begin)
    assert started.wait(60)
    loop.close()
    loop.close()
    assert events == ["finished"]
    assert loop.loop.is_closed()


def test_the_loop_closes_although_a_cancelled_task_raises_system_exit() -> None:
    loop = LoopThread()
    started = threading.Event()

    async def last() -> None:
        try:
            started.set()
            await asyncio.Event().wait()
        finally:
            raise SystemExit(1)

    tasks: list[asyncio.Task[None]] = []
    loop.soon(lambda: tasks.append(loop.loop.create_task(last())))
    assert started.wait(60)
    closing = threading.Thread(target=loop.close, daemon=True)
    closing.start()
    closing.join(60)
    assert not closing.is_alive()
    assert loop.loop.is_closed()


def test_an_unused_loop_closes_at_once() -> None:
    loop = LoopThread()
    loop.close()
    assert loop.loop.is_closed()

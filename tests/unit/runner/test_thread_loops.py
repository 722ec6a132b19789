"""Sync rows in threads find an event loop, as they would on the main thread, which costs nothing until it is used."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from doteval.runner.thread_loops import ThreadLoops

Value = TypeVar("Value")


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


def test_each_thread_has_a_loop_of_its_own(thread: ThreadPoolExecutor) -> None:
    loops = ThreadLoops()
    together = threading.Barrier(3)

    def row(value: int) -> tuple[asyncio.AbstractEventLoop, int]:
        loops.set_loop()
        together.wait(60)
        loop = asyncio.get_event_loop()
        return loop, loop.run_until_complete(asyncio.sleep(0.001, value))

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(row, range(3)))
    assert [value for _, value in found] == [0, 1, 2]
    assert len({id(loop) for loop, _ in found}) == 3
    loops.close()
    assert all(loop.is_closed() for loop, _ in found)


def test_a_loop_that_no_row_uses_opens_no_file(thread: ThreadPoolExecutor) -> None:
    loops = ThreadLoops()
    thread.submit(str).result()
    before = open_files()
    with thread:
        thread.submit(loops.set_loop).result()
        loop = thread.submit(asyncio.get_event_loop).result()
        assert open_files() == before
        assert not thread.submit(loop.is_running).result()
        assert open_files() == before + 3
    loops.close()
    assert open_files() == before


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (lambda: asyncio.run(asyncio.sleep(0, 7)), False),
        (lambda: asyncio.get_event_loop().run_until_complete(asyncio.sleep(0, 7)), True),
        (lambda: 7, True),
    ],
    ids=["run", "get_event_loop", "none"],
)
def test_the_next_row_of_the_thread_has_one_too(thread: ThreadPoolExecutor, row: Callable[[], int], kept: bool) -> None:
    loops = ThreadLoops()

    def run() -> tuple[asyncio.AbstractEventLoop, int]:
        loops.set_loop()
        return asyncio.get_event_loop(), row()

    with thread:
        (first, one), (second, two) = thread.submit(run).result(), thread.submit(run).result()
    assert (one, two) == (7, 7)
    assert (first is second) is kept
    loops.close()


def test_a_loop_that_the_row_has_set_stays(thread: ThreadPoolExecutor) -> None:
    loops = ThreadLoops()
    own = asyncio.new_event_loop()

    def run() -> asyncio.AbstractEventLoop:
        loops.set_loop()
        return asyncio.get_event_loop()

    with thread:
        thread.submit(asyncio.set_event_loop, own).result()
        assert thread.submit(run).result() is own
    loops.close()
    assert not own.is_closed()
    own.close()

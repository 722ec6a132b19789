"""Runs async calls on the event loop, up to a limit at a time."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from doteval.runner.event_loop import LoopThread

Begin = Callable[[], Coroutine[Any, Any, Any]]
Complete = Callable[[Any], None]


class AsyncPool:
    """Keeps up to `limit` coroutines running on the loop; the next one begins as one ends.

    All methods may be called from any thread, and `limit` may be changed by one.
    """

    def __init__(self, loop: LoopThread, limit: int) -> None:
        self._loop = loop
        self.limit = limit
        self._waiting: deque[tuple[Begin, Complete]] = deque()
        # The loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelling = False

    @property
    def waiting(self) -> int:
        """How many coroutines have not begun yet."""
        return len(self._waiting)

    def submit(self, begin: Begin, complete: Complete) -> None:
        """Run a coroutine as soon as there is room, and call `complete` with what it returns, on the loop's thread.

        If the coroutine cancelled its own task, `complete` gets that CancelledError.
        """
        self._waiting.append((begin, complete))
        # Without room the loop need not be woken: a task that ends starts the next one itself.
        if len(self._tasks) < self.limit:
            self._loop.soon(self._fill)

    def drop_waiting(self) -> None:
        """Drop the coroutines that have not begun: their `complete` gets None."""
        self._loop.soon(self._drop)

    def cancel(self) -> None:
        """Drop what has not begun and cancel what runs: `complete` gets None when it has ended."""
        self._loop.soon(self._cancel)

    def _fill(self) -> None:
        while self._waiting and len(self._tasks) < self.limit:
            begin, complete = self._waiting.popleft()
            task = self._loop.loop.create_task(self._run(begin))
            self._tasks.add(task)
            # A callback and not the coroutine's end: a task cancelled before its first step never begins.
            task.add_done_callback(functools.partial(self._completed, complete))

    async def _run(self, begin: Begin) -> Any:
        try:
            return await begin()
        except asyncio.CancelledError as error:
            if self._cancelling or self._loop.is_closing:
                raise
            return error

    def _completed(self, complete: Complete, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        complete(None if task.cancelled() else task.result())
        self._fill()

    def _cancel(self) -> None:
        self._cancelling = True
        self._drop()
        for task in self._tasks:
            task.cancel()

    def _drop(self) -> None:
        while self._waiting:
            _, complete = self._waiting.popleft()
            complete(None)

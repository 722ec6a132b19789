"""Async rows on the event loop: so many at a time, the next begins as one ends."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from doteval.runner.event_loop import LoopThread

Begin = Callable[[], Coroutine[Any, Any, Any]]
Land = Callable[[Any], None]


class LoopWindow:
    """Keeps up to `limit` calls in flight on the loop.

    All methods may be called from any thread, and `limit` may be changed by one.
    """

    def __init__(self, loop: LoopThread, limit: int) -> None:
        self._loop = loop
        self.limit = limit
        self._waiting: deque[tuple[Begin, Land]] = deque()
        # The loop keeps weak references only.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelling = False

    @property
    def waiting(self) -> int:
        """How many rows wait for room."""
        return len(self._waiting)

    def feed(self, begin: Begin, land: Land) -> None:
        """Run a row when there is room; `land` gets what it returns, on the loop's thread.

        If the row cancelled the task that it runs in, `land` gets that CancelledError.
        """
        self._waiting.append((begin, land))
        # Without room the loop need not be woken: whoever makes room looks for what waits.
        if len(self._tasks) < self.limit:
            self._loop.soon(self._fill)

    def drop_waiting(self) -> None:
        """Give up the rows that have not begun: their `land` gets None."""
        self._loop.soon(self._drop)

    def cancel(self) -> None:
        """Give up the rows in flight too: their `land` gets None when they have ended."""
        self._loop.soon(self._cancel)

    def _fill(self) -> None:
        while self._waiting and len(self._tasks) < self.limit:
            begin, land = self._waiting.popleft()
            task = self._loop.loop.create_task(self._fly(begin))
            self._tasks.add(task)
            # Not at the end of the coroutine: one that is cancelled before its first step never begins.
            task.add_done_callback(functools.partial(self._landed, land))

    async def _fly(self, begin: Begin) -> Any:
        try:
            return await begin()
        except asyncio.CancelledError as error:
            if self._cancelling or self._loop.is_closing:
                raise
            return error

    def _landed(self, land: Land, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        land(None if task.cancelled() else task.result())
        self._fill()

    def _cancel(self) -> None:
        self._cancelling = True
        self._drop()
        for task in self._tasks:
            task.cancel()

    def _drop(self) -> None:
        while self._waiting:
            _, land = self._waiting.popleft()
            land(None)

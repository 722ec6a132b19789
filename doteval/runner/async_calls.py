"""Runs async calls on the event loop."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

from doteval.runner.event_loop import LoopThread

Begin = Callable[[], Coroutine[Any, Any, Any]]
Complete = Callable[[Any], None]


class AsyncCalls:
    """Runs coroutines on the loop. All methods may be called from any thread."""

    def __init__(self, loop: LoopThread) -> None:
        self._loop = loop
        # The loop itself keeps only weak references to its tasks.
        self._tasks: set[asyncio.Task[Any]] = set()
        self._cancelling = False

    def submit(self, begin: Begin, complete: Complete) -> None:
        """Run a coroutine, and call `complete` with what it returns, on the loop's thread.

        If the coroutine cancelled its own task, `complete` gets that CancelledError; if it was cancelled by `cancel`,
        None.
        """
        self._loop.soon(functools.partial(self._begin, begin, complete))

    def cancel(self) -> None:
        """Cancel what runs, and what has been submitted but has not begun."""
        self._loop.soon(self._cancel)

    def _begin(self, begin: Begin, complete: Complete) -> None:
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

    def _cancel(self) -> None:
        self._cancelling = True
        for task in self._tasks:
            task.cancel()

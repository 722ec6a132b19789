"""The one asyncio loop of a process, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Value = TypeVar("Value")


class LoopThread:
    """Runs an event loop beside the thread that sets up fixtures.

    Async fixtures and async eval functions share it, so what a session fixture binds to the loop
    stays usable in every row.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="doteval-loop", daemon=True)
        self._started = False

    def start(self) -> None:
        """Start the thread, unless it runs already."""
        if not self._started:
            self._started = True
            self._thread.start()

    def wait_for(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run a coroutine on the loop and wait for it. Not to be called on the loop's own thread."""
        self.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Have a function called on the loop's thread."""
        self.start()
        self.loop.call_soon_threadsafe(callback, *arguments)

    def close(self) -> None:
        """Cancel what is left, let it finish, and end the thread."""
        if self.loop.is_closed():
            return
        if self._started:
            self.wait_for(self._cancel_all())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
        self.loop.close()

    async def _cancel_all(self) -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

"""Runs the process's one asyncio loop on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from doteval.core import clocks
from doteval.runner.timeouts import Expired

Value = TypeVar("Value")

# A waiting thread can be interrupted only between two waits: see `timeouts`.
_WAIT_SECONDS = 0.5


class LoopThread:
    """Runs an event loop beside the thread that sets up fixtures.

    Async fixtures and async eval functions share the loop, so what a session fixture binds to it stays usable in
    every row.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        # A row that stops the clocks must not stop the waits of the other rows.
        self.loop.time = clocks.monotonic  # type: ignore[method-assign]
        self._thread = threading.Thread(target=self._serve, name="doteval-loop", daemon=True)
        self._started = False
        self._closing = False
        self._stopping = False
        self._abandoned = False

    def start(self) -> None:
        """Start the thread if it does not run yet."""
        if not self._started:
            self._started = True
            self._thread.start()

    def wait_for(self, coroutine: Coroutine[Any, Any, Value], released: threading.RLock | None = None) -> Value:
        """Run a coroutine on the loop and wait for what it returns.

        `released`: a lock that this thread may hold and that is free meanwhile, since the loop may need it.

        Raises what the coroutine raises, and RuntimeError on the loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError(
                "an async fixture cannot be looked up while an async evaluation runs: name it as a parameter"
            )
        self.start()
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        if released is not None:
            with released:
                _wait_outside(future, released)
        return _result(future)

    @property
    def thread_id(self) -> int:
        """The id of the loop's thread, as `threading.get_ident` gives it. Starts the thread."""
        self.start()
        assert self._thread.ident is not None
        return self._thread.ident

    @property
    def is_closing(self) -> bool:
        """Whether `close` has been called."""
        return self._closing

    def soon(self, callback: Callable[..., object], *arguments: Any) -> None:
        """Have a function called on the loop's thread."""
        self.start()
        self.loop.call_soon_threadsafe(callback, *arguments)

    def abandon(self) -> None:
        """Have `close` not wait for tasks, of which some do not end. The thread ends with the process."""
        self._abandoned = True

    def close(self) -> None:
        """Cancel the tasks that are left, let them finish, and end the thread."""
        if self.loop.is_closed():
            return
        if self._abandoned:
            self._closing = self._stopping = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            return
        if self._started:
            self._closing = True
            self.wait_for(self._cancel_all())
            self._stopping = True
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
        while not self._stopping:
            # asyncio also raises a task's SystemExit here, and a row may stop the loop: neither must stop the
            # other rows. And the loop watchdog may interrupt this thread between two rows.
            with contextlib.suppress(SystemExit, KeyboardInterrupt, Expired):
                self.loop.run_forever()


def _wait_outside(future: Future[Any], lock: threading.RLock) -> None:
    """Wait for a future without the lock, which this thread holds."""
    done = threading.Condition(lock)

    def notify(_: Future[Any]) -> None:
        with done:
            done.notify_all()

    future.add_done_callback(notify)
    with _cancelled_on_interrupt(future):
        while not done.wait_for(future.done, _WAIT_SECONDS):
            pass


def _result(future: Future[Value]) -> Value:
    with _cancelled_on_interrupt(future):
        while not future.done():
            wait([future], _WAIT_SECONDS)
    return future.result()


@contextlib.contextmanager
def _cancelled_on_interrupt(future: Future[Any]) -> Iterator[None]:
    """Cancel the future if this thread is interrupted while it waits, since nobody needs the value any more."""
    try:
        yield
    except BaseException:
        future.cancel()
        raise

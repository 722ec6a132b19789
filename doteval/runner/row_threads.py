"""Threads for sync rows that may overlap. One in which a row hangs does not keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class RowThreads:
    """A pool of up to `most` threads, which start when they are needed.

    Python waits for the threads of `concurrent.futures` before it ends, so that a row that hangs would keep a command
    alive after Ctrl-C. These threads end with the process.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[[], None]) -> None:
        """Have one of the threads call a function, which raises nothing. All submissions come from one thread."""
        self._calls.put(call)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            name = f"doteval-row_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads. Waits for the calls that run in them."""
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
            self._idle.release()

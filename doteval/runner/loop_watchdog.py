"""Interrupts an async row that never awaits, since it would stop all other rows on the event loop."""

from __future__ import annotations

import threading

from doteval.runner.event_loop import LoopThread
from doteval.runner.timeouts import interrupt

_LONGEST_PAUSE_SECONDS = 1.0


class LoopWatchdog:
    """Interrupts the event loop's thread when the loop has not run a callback for `seconds`.

    `asyncio.timeout` cannot do this, because it needs a running loop. Code that is stuck in C code is
    interrupted when it returns to Python.
    """

    def __init__(self, loop: LoopThread, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="doteval-loop-watchdog", daemon=True).start()

    def close(self) -> None:
        """End the watchdog's thread."""
        self._closed.set()

    @staticmethod
    def latest(seconds: float) -> float:
        """How many seconds such a watchdog takes at most to interrupt a blocked loop."""
        return seconds + _pause(seconds)

    def _watch(self) -> None:
        while not self._closed.wait(_pause(self._seconds)):
            answered = threading.Event()
            self._loop.soon(answered.set)
            while not answered.wait(self._seconds) and not self._closed.is_set():
                interrupt(self._loop.thread_id)


def _pause(seconds: float) -> float:
    return min(_LONGEST_PAUSE_SECONDS, seconds / 4)

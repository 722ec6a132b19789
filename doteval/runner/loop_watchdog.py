"""A watch over the event loop: an async row that never awaits would stop all others with it."""

from __future__ import annotations

import threading

from doteval.runner.event_loop import LoopThread
from doteval.runner.timeouts import interrupt

_LONGEST_PAUSE = 1.0


class LoopWatch:
    """Interrupts what runs on the loop's thread when the loop has not turned for `seconds`.

    `asyncio.timeout` cannot: it needs the loop. Code that is stuck in C code is interrupted when it
    comes back.
    """

    def __init__(self, loop: LoopThread, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="doteval-loop-watch", daemon=True).start()

    def close(self) -> None:
        self._over.set()

    @staticmethod
    def latest(seconds: float) -> float:
        """How many seconds at most such a watch takes to interrupt a loop that does not turn."""
        return seconds + _pause(seconds)

    def _watch(self) -> None:
        while not self._over.wait(_pause(self._seconds)):
            turned = threading.Event()
            self._loop.soon(turned.set)
            while not turned.wait(self._seconds) and not self._over.is_set():
                interrupt(self._loop.thread_id)


def _pause(seconds: float) -> float:
    return min(_LONGEST_PAUSE, seconds / 4)

"""Notices a fixture teardown that does not end, which would keep its process alive for ever.

A teardown that waits in C code (for a socket, a process, another thread) cannot be interrupted outside of the main
thread. The process can only name the fixture and exit without it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType

from doteval.core import clocks
from doteval.pytest_runtime import pytest_internals as internals


class FixtureWatchdog:
    """Samples the stack of the thread that tears fixtures down; it costs nothing between two samples.

    `limit`: seconds that the teardown of one fixture may take. `clock`: monotonic seconds.
    """

    def __init__(
        self, thread: threading.Thread, limit: float, *, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._thread = thread
        self._limit = limit
        self._clock = clock
        self._closing: str | None = None
        # The frame itself and not its id, which the next teardown might reuse.
        self._seen: FrameType | str | None = None
        self._since = 0.0

    def closing(self, what: str = "the end of the pytest session") -> None:
        """From now on the thread has nothing to do but to end, so all of it counts. `what` names it for people."""
        self._closing = what

    def closed(self) -> None:
        """The pytest session has ended, so that nothing is overdue any more."""
        self._closing = None

    def overdue(self) -> str | None:
        """What has taken longer than the limit, for people; None if nothing has. Call it every few seconds."""
        thread_id = self._thread.ident
        frame = None if thread_id is None else sys._current_frames().get(thread_id)
        found = internals.teardown_under_way(frame)
        seen: FrameType | str | None = None
        what = ""
        if found is not None:
            seen, definition = found
            what = f"the teardown of the fixture {definition.argname!r} ({definition.scope})"
        elif self._closing is not None and self._thread.is_alive():
            seen = what = self._closing
        if seen is None or seen is not self._seen:
            self._seen, self._since = seen, self._clock()
            return None
        return what if self._clock() - self._since >= self._limit else None

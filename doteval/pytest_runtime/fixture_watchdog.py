"""A watch over teardowns: one that never ends would keep its process for ever, and nothing can end it.

What waits in C code (for a socket, a process, another thread) cannot be interrupted outside of the main
thread, so all that is left is to say which fixture it is, and to leave without it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from doteval.pytest_runtime import pytest_internals as internals


class FixtureWatchdog:
    """Looks at the thread that tears fixtures down; between two looks it costs nothing.

    `patience` is how many seconds one fixture may take; `clock` gives seconds that only ever grow.
    """

    def __init__(
        self, thread: threading.Thread, patience: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._thread = thread
        self._patience = patience
        self._clock = clock
        self._closing: str | None = None
        # The frame itself and not its id, which the next teardown might have too.
        self._seen: FrameType | str | None = None
        self._since = 0.0

    def closing(self, what: str = "the end of the pytest session") -> None:
        """Say that from now on the thread has nothing to do but to tear down and to end; `what` it does first."""
        self._closing = what

    def overdue(self) -> str | None:
        """What has been torn down for too long, for people; None if all is well. To be asked now and then."""
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
        return what if self._clock() - self._since >= self._patience else None

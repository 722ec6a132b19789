"""The heartbeat: a thread on which a process that runs rows reports to the store, among other duties."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence

from doteval.core import clocks
from doteval.core.liveness import is_orphaned
from doteval.errors import DotEvalError

logger = logging.getLogger("doteval.worker")

# Seconds within which a requested duty is done: several requests in that time are one.
_SOON_SECONDS = 0.1


class Heartbeat:
    """Does duties at intervals, on a thread of its own. What one duty waits for holds up the others of its thread.

    An outage of the store or the broker is logged once; the duty is tried again at its next time.

    duties: pairs of an interval in seconds and an action
    parent: the pid of the process that started this one; if that one ends, this process sends itself SIGTERM
    name: of the thread
    """

    def __init__(
        self,
        duties: Sequence[tuple[float, Callable[[], None]]],
        *,
        parent: int | None = None,
        name: str = "doteval-heartbeat",
    ) -> None:
        self._duties = duties
        self._due = [clocks.monotonic() + interval for interval, _ in duties]
        self._parent = parent
        self._outage = ""
        self._lock = threading.Lock()
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self, action: Callable[[], None]) -> None:
        """Do one of the duties within a tenth of a second, however long its interval is."""
        number = [each for _, each in self._duties].index(action)
        with self._lock:
            self._due[number] = min(self._due[number], clocks.monotonic() + _SOON_SECONDS)
        self._wake.set()

    def stop(self, timeout: float | None = None) -> bool:
        """Begin no duty any more, and wait for the one that is being done. False if `timeout` seconds were too few."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _keep_beating(self) -> None:
        while not self._stopping:
            for number, (interval, action) in enumerate(self._duties):
                if self._is_due(number, interval):
                    began = clocks.monotonic()
                    self._attempt(action)
                    if clocks.monotonic() - began >= interval:
                        # No burst after a duty that took long.
                        self._due[number] = clocks.monotonic() + interval
            if is_orphaned(self._parent):
                logger.warning("the service that started this worker process is gone; leaving")
                self._parent = None
                os.kill(os.getpid(), signal.SIGTERM)
            self._wake.wait(max(0.0, min(self._due) - clocks.monotonic()))
            self._wake.clear()

    def _is_due(self, number: int, interval: float) -> bool:
        """Whether a duty is to be done now; if so, it is due again after its interval."""
        with self._lock:
            if clocks.monotonic() < self._due[number]:
                return False
            # Set before the duty is done, so that a request in the meantime means once more.
            self._due[number] = clocks.monotonic() + interval
            return True

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DotEvalError as error:
            if error.message != self._outage and error.say_once():
                logger.warning("%s", error.message)
            self._outage = error.message
        except Exception:
            # Without a heartbeat this process would count as dead, and go on working.
            logger.exception("an unexpected error in the heartbeat")
        else:
            self._outage = ""

"""The heartbeat: a process that runs rows tells the store that it lives and what it holds."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from doteval.core.liveness import is_orphaned
from doteval.errors import DotEvalError

logger = logging.getLogger("doteval.worker")

# Within which a duty is done that was asked for: several that ask at the same time are one.
_SOON_SECONDS = 0.1


class Heartbeat:
    """Does `duties`, pairs of a pause in seconds and an action, on a thread of its own.

    A store or broker that is away is logged once and tried again with the next turn. When
    `parent` is no longer this process's parent, the process asks itself to leave.
    """

    def __init__(self, duties: Sequence[tuple[float, Callable[[], None]]], *, parent: int | None = None) -> None:
        self._duties = duties
        self._due = [time.monotonic() + pause for pause, _ in duties]
        self._parent = parent
        self._away = ""
        self._lock = threading.Lock()
        self._stopping = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="doteval-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def soon(self, action: Callable[[], None]) -> None:
        """Do one of the duties in a moment, however long its pause is."""
        number = [each for _, each in self._duties].index(action)
        with self._lock:
            self._due[number] = min(self._due[number], time.monotonic() + _SOON_SECONDS)
        self._wake.set()

    def stop(self) -> None:
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_beating(self) -> None:
        while not self._stopping:
            for number, (pause, action) in enumerate(self._duties):
                if self._is_due(number, pause):
                    began = time.monotonic()
                    self._attempt(action)
                    if time.monotonic() - began >= pause:
                        # Not in a burst after a turn that took long.
                        self._due[number] = time.monotonic() + pause
            if is_orphaned(self._parent):
                logger.warning("the service that started this worker process is gone; leaving")
                self._parent = None
                os.kill(os.getpid(), signal.SIGTERM)
            self._wake.wait(max(0.0, min(self._due) - time.monotonic()))
            self._wake.clear()

    def _is_due(self, number: int, pause: float) -> bool:
        """Whether a duty is to be done now; if so, it is due again after its pause."""
        with self._lock:
            if time.monotonic() < self._due[number]:
                return False
            # Before it is done: who asks for it meanwhile means once more.
            self._due[number] = time.monotonic() + pause
            return True

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except DotEvalError as error:
            if error.message != self._away:
                logger.warning("%s", error.message)
            self._away = error.message
        except Exception:
            # Without a heart this process would count as dead and go on working.
            logger.exception("an unexpected error in the heartbeat")
        else:
            self._away = ""

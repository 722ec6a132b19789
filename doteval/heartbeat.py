"""The heartbeat: a process that runs rows tells the store that it lives and what it holds."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence

from doteval.errors import DotEvalError

logger = logging.getLogger("doteval.worker")

BEAT_SECONDS = 1.0
# Between two looks at whether evaluations need dispatching: what a submitter does while it follows, and
# what must go on when it has left.
DISPATCH_SECONDS = 2.0


class Heartbeat:
    """Does `duties`, pairs of a pause in seconds and an action, on a thread of its own.

    A store or broker that is away is logged once and tried again with the next turn. When
    `supervisor` is no longer this process's parent, the process asks itself to leave.
    """

    def __init__(self, duties: Sequence[tuple[float, Callable[[], None]]], *, supervisor: int | None = None) -> None:
        self._duties = duties
        self._due = [pause for pause, _ in duties]
        self._supervisor = supervisor
        self._away = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="doteval-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep_beating(self) -> None:
        start = time.monotonic()
        while not self._stop.wait(max(0.0, start + min(self._due) - time.monotonic())):
            for number, (pause, action) in enumerate(self._duties):
                if time.monotonic() >= start + self._due[number]:
                    self._attempt(action)
                    # Not in a burst after a turn that took long.
                    self._due[number] = time.monotonic() - start + pause
            if self._supervisor is not None and os.getppid() != self._supervisor:
                logger.warning("the service that started this worker process is gone; leaving")
                self._supervisor = None
                os.kill(os.getpid(), signal.SIGTERM)

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

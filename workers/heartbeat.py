"""The heartbeat: a worker process tells the store that it lives and what it holds."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable

from doteval.errors import DotEvalError

logger = logging.getLogger("doteval.worker")

BEAT_SECONDS = 1.0
# Beats between two looks at whether evaluations need dispatching: what a submitter does while it
# follows, and what must go on when it has left.
_BEATS_PER_DISPATCH = 2


class Heartbeat:
    """Calls `beat` once a second and `dispatch` every second time, on a thread of its own.

    A store or broker that is away is logged once and tried again with the next beat. When
    `supervisor` is no longer this process's parent, the process asks itself to leave.
    """

    def __init__(
        self, beat: Callable[[], None], dispatch: Callable[[], None], *, supervisor: int | None = None
    ) -> None:
        self._beat = beat
        self._dispatch = dispatch
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
        count = 0
        while not self._stop.wait(BEAT_SECONDS):
            count += 1
            self._attempt(self._beat)
            if count % _BEATS_PER_DISPATCH == 0:
                self._attempt(self._dispatch)
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

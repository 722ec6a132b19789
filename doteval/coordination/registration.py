"""The registration of a process in the result store, under a random token that no other process has.

It is the identity of the process there: its heartbeats count for no other process, and a report of a death ends no
other one. A process that finds itself recorded as dead registers anew, under another token, which later reports about
the old one do not reach.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from doteval.core.process_identity import new_token
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store import HeldRange, Store, WorkerInfo

logger = logging.getLogger("doteval.worker")


class Registration:
    """Registers this process, and keeps it registered while it sends heartbeats. Safe to use from several threads.

    Made in the process that it is about: a forked process makes its own.

    announce: called with each token before the store has it, so that a supervisor knows it however this process ends.
    """

    def __init__(
        self,
        store: Store,
        info: WorkerInfo,
        *,
        state: WorkerPhase = WorkerPhase.LOADING,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._store = store
        self._info = info
        self._announce = announce
        self._lock = threading.Lock()
        self._has_ended = False
        self._token = self._new_token()
        self._id = store.workers.begin(info, state=state, token=self._token)

    @property
    def id(self) -> int:
        """The id of this process in the store. It changes if the store was replaced by a backup."""
        return self._id

    def beat(self, *, state: WorkerPhase, holding: Sequence[HeldRange], broker_silence: float | None = None) -> bool:
        """Send a heartbeat with the rows that this process holds, as `Workers.beat` stores it.

        Returns False if it had to register anew, since it was recorded as dead: others may have its rows by now.
        """
        token = self._token
        if self._has_ended or self._store.workers.beat(
            self._id, token=token, state=state, holding=holding, broker_silence=broker_silence
        ):
            return True
        with self._lock:
            if self._has_ended or token != self._token:
                # Another thread was faster.
                return True
            new = self._new_token()
            self._id, reason = self._store.workers.renew(
                self._id, token, self._info, new=new, state=state, holding=holding
            )
            self._token = new
        logger.warning(
            "the store said that this process is dead%s; it has registered anew and goes on",
            f" ({reason})" if reason else "",
        )
        return False

    def end(self, cause: WorkerEnd = WorkerEnd.LEFT, *, reason: str) -> None:
        """Record that this process leaves, and send no heartbeat any more. The first cause and reason stay."""
        self._has_ended = True
        self._store.workers.end(self._id, cause, reason=reason)

    def _new_token(self) -> str:
        token = new_token()
        if self._announce is not None:
            self._announce(token)
        return token

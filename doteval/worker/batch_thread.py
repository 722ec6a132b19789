"""Runs the batch coordinator of a worker process on a thread of its own, since it waits for providers."""

from __future__ import annotations

import logging
import threading

from doteval.coordination.batches.coordinator import BatchCoordinator
from doteval.core.liveness import DISPATCH_SECONDS
from doteval.core.states import WorkerPhase
from doteval.errors import BrokerError, StoreError
from doteval.worker.context import WorkerContext
from doteval.worker.row_task_errors import GiveBackError

# While batches are on their way.
_BUSY_SECONDS = 0.5

logger = logging.getLogger("doteval.worker")


class BatchThread:
    """Has the coordinator look every moment while there are batches, and now and then otherwise."""

    def __init__(self, context: WorkerContext, coordinator: BatchCoordinator) -> None:
        self._context = context
        self._coordinator = coordinator
        self._wake = threading.Event()
        self._stopping = False
        self._last = ""
        self._thread = threading.Thread(target=self._keep_looking, name="doteval-batches", daemon=True)

    def start(self) -> None:
        """Begin, once the process can run rows."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Begin nothing more, and wait for at most `timeout` seconds for what has begun.

        A last look has the provider cancel the batches of evaluations that were cancelled.
        """
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _keep_looking(self) -> None:
        busy = False
        while True:
            self._wake.wait(_BUSY_SECONDS if busy else DISPATCH_SECONDS)
            self._wake.clear()
            if self._context.state is not WorkerPhase.LOADING:
                busy = self._look()
            if self._stopping:
                return

    def _look(self) -> bool:
        try:
            busy = self._coordinator.look(may_run_rows=not self._context.leaving.is_set())
        except (StoreError, BrokerError) as error:
            # What is stored is known at the next look; rows that were not published count as lost, and are published.
            if error.message != self._last and (not isinstance(error, StoreError) or error.say_once()):
                logger.warning("batches wait, because %s", error.message)
            self._last = error.message
            return True
        except GiveBackError:
            # This process leaves.
            return False
        except Exception:
            logger.exception("an unexpected error while batches were looked at")
            return False
        self._last = ""
        return busy

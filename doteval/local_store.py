"""The result store of evaluations that run in this process, and what writes to it."""

from __future__ import annotations

import os
import socket

from doteval import __version__
from doteval.load_recorder import LoadRecorder
from doteval.store import GroupWriter, Store, WorkerInfo


class LocalStore:
    """An open store with one experiment in it. This process is known there as a worker named `service`."""

    def __init__(self, storage: str | None, experiment: str, *, service: str) -> None:
        self.store = Store.open(storage)
        self.experiment = self.store.experiments.begin(experiment)
        self._worker_id = self.store.workers.begin(
            WorkerInfo(service, socket.gethostname(), os.getpid(), (), 1, {"doteval": __version__})
        )
        self.writer = GroupWriter(self.store, self._worker_id)
        self.loads = LoadRecorder(self.store, self._worker_id)

    def close(self) -> None:
        """Store what is left and close the store."""
        self.writer.close()
        self.store.workers.end(self._worker_id, reason="left")
        self.store.close()

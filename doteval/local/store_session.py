"""The result store of evaluations that run in this process, with a heartbeat and a group writer."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import threading

from doteval.coordination.claims import has_ended
from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.coordination.heartbeat import Heartbeat
from doteval.coordination.quota_guard import Quota
from doteval.core.experiments import Evaluation
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.states import WorkerPhase
from doteval.store import GroupWriter, HeldRange, Store, WorkerInfo, WorkerState


class StoreSession:
    """An open store and one experiment in it.

    This process is registered there as a worker named `service`, with a heartbeat every second.
    """

    def __init__(self, storage: str | None, experiment: str, *, service: str) -> None:
        self.store = Store.open(storage)
        self.experiment = self.store.experiments.begin(experiment)
        self._worker_id = self.store.workers.begin(
            WorkerInfo(
                service, socket.gethostname(), os.getpid(), (), 1, {"doteval": importlib.metadata.version("doteval")}
            )
        )
        self.writer = GroupWriter(self.store, self._worker_id)
        self.loads = LoadRecorder(self.store, self._worker_id)
        self.quota = Quota()
        self._holding: list[HeldRange] = []
        # Otherwise a heartbeat could overwrite a claim with what was held before it.
        self._reporting = threading.Lock()
        self._heartbeat = Heartbeat([(BEAT_SECONDS, self._beat)])
        self._heartbeat.start()

    def claim(self, evaluation: Evaluation) -> WorkerState | None:
        """Have this process hold all rows of an evaluation; if another process holds some, return that one."""
        with self._reporting:
            other = self.store.workers.claim(self._worker_id, evaluation, is_gone=has_ended)
            if other is None:
                self._holding = [HeldRange.whole(evaluation.uid)]
            return other

    def holds(self, evaluation: Evaluation) -> bool:
        """Whether this process holds the rows of an evaluation."""
        return HeldRange.whole(evaluation.uid) in self._holding

    def release(self) -> None:
        """Hold no rows any more; the next heartbeat reports that."""
        self._holding = []

    def close(self) -> None:
        """Store the results that are left, and close the store."""
        self._heartbeat.stop()
        self.writer.close()
        self.store.workers.end(self._worker_id, reason="left")
        self.store.close()

    def _beat(self) -> None:
        with self._reporting:
            self.store.workers.beat(self._worker_id, state=WorkerPhase.READY, holding=self._holding)

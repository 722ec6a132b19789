"""The result store of evaluations that run in this process, with a heartbeat and a group writer."""

from __future__ import annotations

import importlib.metadata
import threading

from doteval.coordination.claims import has_ended
from doteval.coordination.fixture_load_recorder import LoadRecorder
from doteval.coordination.heartbeat import Heartbeat
from doteval.coordination.quota_guard import Quota
from doteval.coordination.registration import Registration
from doteval.core.experiments import Evaluation
from doteval.core.liveness import BEAT_SECONDS
from doteval.core.states import WorkerPhase
from doteval.local.usage_notes import end_notes, note_usage_of
from doteval.store import GroupWriter, HeldRange, Store, WorkerInfo, WorkerState
from doteval.supervision.left_usage import OwnJournals, store_left_usage
from doteval.supervision.start_reports import announce_token
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path


class StoreSession:
    """An open store and one experiment in it.

    This process is registered there as a worker named `service`, with a heartbeat every second.

    usage_journal: has what the rows of this process have spent and the store does not have yet.
    """

    def __init__(self, storage: str | None, experiment: str, *, service: str) -> None:
        self.store = Store.open(storage)
        store_left_usage(self.store)
        self._journals = OwnJournals()
        directory = self._journals.directory
        self.usage_journal = UsageJournal(usage_journal_path(directory))
        self.experiment = self.store.experiments.begin(experiment)
        versions = {"doteval": importlib.metadata.version("doteval")}
        self._registration = Registration(
            self.store,
            WorkerInfo.of_this_process(service, versions=versions),
            announce=lambda token: announce_token(str(directory), token),
        )
        self.writer = GroupWriter(self.store, self._registration.id)
        self.loads = LoadRecorder(self.store, self._registration.id)
        self.quota = Quota()
        self._holding: list[Evaluation] = []
        # By evaluation: the process that has taken its rows over, since this one was recorded as dead.
        self._taken_by: dict[str, WorkerState] = {}
        # Otherwise a heartbeat could overwrite a claim with what was held before it.
        self._reporting = threading.Lock()
        self._heartbeat = Heartbeat([(BEAT_SECONDS, self._beat)])
        self._heartbeat.start()

    def claim(self, evaluation: Evaluation) -> WorkerState | None:
        """Have this process hold all rows of an evaluation; if another process holds some, return that one."""
        with self._reporting:
            other = self._claim(evaluation)
            if other is None:
                self._holding = [evaluation]
                note_usage_of(evaluation.uid, self.usage_journal)
            return other

    def taken_by(self, evaluation: Evaluation) -> WorkerState | None:
        """The process that has taken over the rows of an evaluation that this one held, None if none has."""
        return self._taken_by.get(evaluation.uid)

    @property
    def worker_id(self) -> int:
        """The id of this process in the store."""
        return self._registration.id

    def holds(self, evaluation: Evaluation) -> bool:
        """Whether this process holds the rows of an evaluation."""
        return any(held.uid == evaluation.uid for held in self._holding)

    def release(self) -> None:
        """Hold no rows any more; the next heartbeat reports that."""
        self._holding = []

    def close(self) -> None:
        """Store the results that are left, and the usage that belongs to none, and close the store."""
        self._heartbeat.stop()
        self.writer.close()
        end_notes(self.usage_journal)
        self._journals.close(self.store, self.worker_id)
        self._registration.end(reason="left")
        self.store.close()

    def _beat(self) -> None:
        with self._reporting:
            holding = [HeldRange.whole(each.uid) for each in self._holding]
            if self._registration.beat(state=WorkerPhase.READY, holding=holding):
                return
            self.writer.worker_id = self.loads.worker_id = self.worker_id
            # Only now, since the claim needs a registration. The other process keeps what it has claimed meanwhile.
            for each in self._holding:
                other = self._claim(each)
                if other is not None:
                    self._taken_by[each.uid] = other
            self._holding = [each for each in self._holding if each.uid not in self._taken_by]

    def _claim(self, evaluation: Evaluation) -> WorkerState | None:
        return self.store.workers.claim(self.worker_id, evaluation, is_gone=has_ended)

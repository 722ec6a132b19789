"""Records loads of session fixtures, and the statistics that they report, in the result store."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from doteval.core import clocks
from doteval.core.metering import sum_by_identity
from doteval.core.results import Usage
from doteval.core.states import EvaluationEnd, LoadFailureKind
from doteval.errors import StoreError, UnstorableValueError
from doteval.pytest_runtime.evaluation_setup import fixture_definitions
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.load_timer import Load, Stats
from doteval.pytest_runtime.outcomes import ending_of
from doteval.runner.assignments import LoadFailedError
from doteval.store import EVALUATION_FILES, Store

logger = logging.getLogger("doteval.worker")

# How the end of an evaluation is recorded by a process that cannot load it.
_KINDS = {
    EvaluationEnd.SKIPPED: LoadFailureKind.SKIPPED,
    EvaluationEnd.EXPECTED_FAILURE: LoadFailureKind.EXPECTED,
}


class LoadRecorder:
    """A `LoadObserver` that writes to the store.

    All methods belong to the thread that loads fixtures, but for `take_unpaid`. A fixture never fails because the store
    cannot be used: then its load is not recorded.
    """

    def __init__(self, store: Store, worker_id: int) -> None:
        self._store = store
        self.worker_id = worker_id
        self._loaded: dict[int, tuple[int, Load]] = {}
        self._failed_for: set[int] = set()
        self._unpaid: list[tuple[object, tuple[Usage, ...]]] = []
        self._lock = threading.Lock()
        # Whether the end of a load could not be recorded.
        self._is_store_away = False

    def loaded(self, load: Load) -> None:
        with _if_possible(f"the load of the fixture {load.fixture}"):
            load_id = self._store.loads.begin(self.worker_id, load.fixture, load.node, load.seconds)
            self._loaded[id(load)] = (load_id, load)

    def load_failed(self, load: Load) -> None:
        kind = LoadFailureKind.SKIPPED if load.skipped else LoadFailureKind.ERROR
        with _if_possible(f"the failed load of the fixture {load.fixture}"):
            self._store.loads.begin(
                self.worker_id, load.fixture, load.node, load.seconds, error=load.error, failure=kind
            )

    def unloading(self, load: Load) -> None:
        load_id, _ = self._loaded.pop(id(load), (None, load))
        if load_id is None or self._is_store_away:
            return
        start = clocks.perf_counter()
        # The other fixtures of a process that leaves do not wait for the store as well.
        self._is_store_away = True
        with _if_possible(f"the teardown of the fixture {load.fixture}"):
            try:
                self._store.loads.end(load_id, load.stats(), clocks.perf_counter() - start)
            except UnstorableValueError as error:
                self._store.loads.end(load_id, _unstorable(error), clocks.perf_counter() - start)
            self._is_store_away = False

    def used(self, definition: object, evaluation: EvaluationItem | None, usage: tuple[Usage, ...]) -> None:  # noqa: ARG002
        with self._lock:
            self._unpaid.append((definition, usage))

    def take_unpaid(self, item: EvaluationItem) -> tuple[Usage, ...]:
        """Take the usage of fixture set-ups that no evaluation has paid for, of fixtures that this one requests."""
        if not self._unpaid:
            return ()
        mine = fixture_definitions(item)
        with self._lock:
            taken = [usage for definition, usage in self._unpaid if definition in mine]
            self._unpaid = [each for each in self._unpaid if each[0] not in mine]
        return sum_by_identity(each for usage in taken for each in usage)

    def snapshot(self) -> None:
        """Store the current statistics of every loaded fixture."""
        with _if_possible("the statistics of fixtures"):
            for load_id, load in self._loaded.values():
                stats = load.stats()
                if stats is not None:
                    self._keep(load_id, stats)

    def _keep(self, load_id: int, stats: Stats) -> None:
        try:
            self._store.loads.snapshot(load_id, stats)
        except UnstorableValueError as error:
            self._store.loads.snapshot(load_id, _unstorable(error))

    def failed_for(self, evaluation_id: int, error: LoadFailedError) -> None:
        """Record that this process cannot run an evaluation, whose fixtures cannot be set up."""
        if evaluation_id not in self._failed_for:
            self._failed_for.add(evaluation_id)
            cause = error.__cause__
            assert cause is not None
            ending = ending_of(error.item, cause, otherwise=EvaluationEnd.FIXTURES_FAILED)
            self._store.loads.begin(
                self.worker_id,
                "fixtures",
                error.item.evaluation_path,
                0.0,
                error=ending.reason,
                failure=_KINDS.get(ending.cause, LoadFailureKind.ERROR),
                evaluation_id=evaluation_id,
            )

    def was_reloaded_for(self, evaluation_id: int) -> bool:
        """Whether a predecessor of this process has left to read changed files for an evaluation."""
        failures = self._store.loads.failures(evaluation_id)
        live = {worker.id: worker.info.place for worker in self._store.workers.live()}
        return any(
            each.kind is LoadFailureKind.STALE_CODE
            and each.worker_id not in live
            and each.place == live.get(self.worker_id)
            for each in failures
        )

    def refused(self, evaluation_id: int, message: str, *, reloads: bool) -> None:
        """Record that this process will not run an evaluation, whose files differ from the submitter's.

        reloads: whether its successor is going to have the submitter's files
        """
        kind = LoadFailureKind.STALE_CODE if reloads else LoadFailureKind.OTHER_CODE
        known = {each.kind for each in self._store.loads.failures(evaluation_id) if each.worker_id == self.worker_id}
        # A new submission makes earlier failures count no more, and files may come meanwhile.
        if kind not in known:
            self._store.loads.begin(
                self.worker_id, EVALUATION_FILES, "", 0.0, error=message, failure=kind, evaluation_id=evaluation_id
            )


@contextlib.contextmanager
def _if_possible(what: str) -> Iterator[None]:
    """Do without the record of something if the store cannot be used."""
    try:
        yield
    except StoreError as error:
        if error.say_once():
            logger.warning("%s cannot be recorded: %s", what, error.message)


def _unstorable(error: UnstorableValueError) -> Stats:
    return {"get_stats cannot be stored": error.message}

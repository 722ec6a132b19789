"""Judges by the failures to load an evaluation whether any live worker process can run it, now or later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from doteval.core.experiments import Ending, EvaluationStatus
from doteval.core.states import EvaluationEnd, LoadFailureKind, WorkerPhase
from doteval.store import LoadFailure, WorkerState


class Prospect(Enum):
    """Whether worker processes can run an evaluation."""

    GOOD = auto()
    """One may be able to, or none is there that has failed."""
    AFTER_RELOAD = auto()
    """None can now. Some are going to read the changed files, once they have no other rows to run."""
    NONE = auto()


def prospect(
    failures: Sequence[LoadFailure], live: Sequence[WorkerState], writers: Callable[[], Collection[int]]
) -> Prospect:
    """Judge an evaluation by its failures, the oldest first, and the live worker processes of its queue.

    A process whose fixtures fail leaves and is replaced. The replacement is not always waited for: otherwise processes
    that load for minutes and then fail would follow each other for ever.

    writers: the ids of the worker processes that have stored results of the evaluation
    """
    failed_on = {failure.worker_id for failure in failures}
    final = [failure for failure in failures if failure.kind is not LoadFailureKind.STALE_CODE]
    hopeful = [worker for worker in live if worker.id not in failed_on and not _follows_failures(worker, final)]
    if not live or hopeful:
        return Prospect.GOOD
    last = {failure.worker_id: failure.kind for failure in failures}
    if any(last.get(worker.id) is LoadFailureKind.STALE_CODE for worker in live):
        return Prospect.AFTER_RELOAD
    # A process that has stored results can load the fixtures, whatever happened to its predecessors.
    if not {worker.id for worker in live}.difference(failed_on).isdisjoint(writers()):
        return Prospect.GOOD
    return Prospect.NONE


def ending_of_failures(failures: Sequence[LoadFailure]) -> Ending:
    """How an evaluation ends that no worker process can run, by its failures."""
    last = [failure for failure in failures if failure.kind is not LoadFailureKind.STALE_CODE][-1]
    if last.kind is LoadFailureKind.SKIPPED:
        return Ending(EvaluationStatus.SKIPPED, EvaluationEnd.SKIPPED, last.error)
    if last.kind is LoadFailureKind.EXPECTED:
        return Ending(EvaluationStatus.FAILED, EvaluationEnd.EXPECTED_FAILURE, last.error)
    if last.kind is LoadFailureKind.OTHER_CODE:
        reason = f"no worker process can run it: {last.error}"
        return Ending(EvaluationStatus.FAILED, EvaluationEnd.OTHER_CODE, reason)
    reason = f"{last.fixture} failed on every worker process: {last.error}"
    return Ending(EvaluationStatus.FAILED, EvaluationEnd.FIXTURES_FAILED, reason)


def _follows_failures(worker: WorkerState, failures: Sequence[LoadFailure]) -> bool:
    """Whether a worker process is expected to fail, because its predecessors in the service could not load.

    One failed predecessor is enough if the process is still loading. Two are needed if it is ready, since it may be
    about to load fixtures narrower than the session, or if its predecessor had different files.
    """
    before = [each for each in failures if each.place == worker.info.place and each.failed_at <= worker.started_at]
    once = worker.state is WorkerPhase.LOADING and bool(before) and before[-1].kind is not LoadFailureKind.OTHER_CODE
    return len(before) >= (1 if once else 2)

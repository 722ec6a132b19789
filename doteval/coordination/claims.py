"""Turns: where several commands would run the rows of one evaluation, one at a time does.

Plain pytest, and `run`, run every row themselves; a private broker is known to one command only. Who comes second waits
for the first one's end, and runs what it leaves. What worker processes run is theirs, with a submitter or without.
In the other direction nothing is needed, since a submitter publishes no rows that a live process holds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.liveness import LATE_AFTER_SECONDS
from doteval.core.queues_and_devices import DEFAULT_QUEUE
from doteval.local.store_session import LocalStore
from doteval.store import DRAINING, HeldRange, Store, WorkerState

_LOOK_SECONDS = 0.5


def wait_for_turn(local: LocalStore, evaluation: Evaluation, told: Callable[[str], None]) -> None:
    """Return when this process holds all rows of an evaluation, and nobody else any.

    `told` is called with a line for people if that takes its time. Raises StoreError.
    """

    def other() -> WorkerState | None:
        now = local.store.evaluations.by_uid(evaluation.uid)
        return (now.config.submitted and _serving(local.store, now)) or local.claim(evaluation, is_gone=_is_gone)

    _wait_while(other, evaluation, told)


def wait_for_other_brokers(
    store: Store, evaluations: Sequence[Evaluation], told: Callable[[str], None], *, private: bool
) -> None:
    """Return when no evaluation is being run by worker processes with another broker: nobody knows what waits there.

    That is so if it is a private one, or if ours is `private`. `told` is called with a line for people if it takes its
    time. Raises StoreError.
    """
    _forget_killed(store, evaluations)
    for evaluation in evaluations:

        def other(uid: str = evaluation.uid) -> WorkerState | None:
            now = store.evaluations.by_uid(uid)
            other_broker = now.is_private or (private and now.config.submitted)
            return _serving(store, now) if other_broker else None

        _wait_while(other, evaluation, told)


def _forget_killed(store: Store, evaluations: Sequence[Evaluation]) -> None:
    """Say of processes that ran evaluations by themselves, and were killed, that they are no more.

    Else nobody would publish what they held before they had been silent for long. Of worker processes their own
    services say it.
    """
    whole = {HeldRange.whole(evaluation.uid) for evaluation in evaluations}
    for worker in store.workers.live():
        if whole.intersection(worker.holding) and _is_gone(worker):
            store.workers.end(worker.id, reason="was killed, or ended without a word")


def _wait_while(other: Callable[[], WorkerState | None], evaluation: Evaluation, told: Callable[[str], None]) -> None:
    """Wait while there is another that runs an evaluation, and say who it is."""
    said: int | None = None
    while (found := other()) is not None:
        if said is None:
            said = found.id
            who = f"{found.info.service} (process {found.info.pid} on {found.info.hostname})"
            told(
                f"{evaluation.name} of the experiment {evaluation.experiment.name!r} is being run by {who}: waiting "
                "for its end, to run what it leaves"
            )
        time.sleep(_LOOK_SECONDS)


def _serving(store: Store, evaluation: Evaluation) -> WorkerState | None:
    """A worker process that goes on taking rows of an evaluation that runs, None if there is none."""
    if evaluation.status is not EvaluationStatus.RUNNING:
        return None
    queue = evaluation.queue or DEFAULT_QUEUE
    live = store.workers.live()
    return next((worker for worker in live if queue in worker.info.queues and worker.state != DRAINING), None)


def _is_gone(worker: WorkerState) -> bool:
    """Whether a process of this machine that has fallen silent is no more. Of others nobody here can tell."""
    if worker.info.hostname != socket.gethostname() or worker.age < LATE_AFTER_SECONDS:
        return False
    try:
        os.kill(worker.info.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # Somebody else's.
        return False
    return False

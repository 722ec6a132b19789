"""Turns: where several commands would run the rows of one evaluation, one at a time does.

Plain pytest, and `run`, run every row themselves. Who comes second waits for the first one's end, and runs what it
leaves. What worker processes run is theirs too: they finish it without a submitter. In the other direction nothing is
needed, since a submitter publishes no rows that a live process holds.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from doteval.experiments import POLICY, Evaluation, EvaluationStatus
from doteval.local_store import LocalStore
from doteval.placement import DEFAULT_QUEUE
from doteval.store import Store, WorkerState

_LOOK_SECONDS = 0.5
# Seconds after which a process of this machine is asked for by its id: it should be heard of every second.
_SILENT_SECONDS = 2.5


def wait_for_turn(local: LocalStore, evaluation: Evaluation, told: Callable[[str], None]) -> None:
    """Return when this process holds all rows of an evaluation, and nobody else any.

    `told` is called with a line for people if that takes its time. Raises StoreError.
    """
    before = ""
    while True:
        other = _at_work(local.store, evaluation) or local.claim(evaluation, is_gone=_is_gone)
        if other is None:
            return
        who = f"{other.info.service} (process {other.info.pid} on {other.info.hostname})"
        if who != before:
            before = who
            told(
                f"{evaluation.name} of the experiment {evaluation.experiment.name!r} is being run by {who}: waiting "
                "for its end, to run what it leaves"
            )
        time.sleep(_LOOK_SECONDS)


def _at_work(store: Store, evaluation: Evaluation) -> WorkerState | None:
    """A worker process that serves an evaluation which was submitted and goes on, None if there is none."""
    now = store.evaluations.by_uid(evaluation.uid)
    if now.status is not EvaluationStatus.RUNNING or POLICY not in now.spec.metadata:
        return None
    queue = now.queue or DEFAULT_QUEUE
    return next((worker for worker in store.workers.live() if queue in worker.info.queues), None)


def _is_gone(worker: WorkerState) -> bool:
    """Whether a process of this machine that has fallen silent is no more. Of others nobody here can tell."""
    if worker.info.hostname != socket.gethostname() or worker.age < _SILENT_SECONDS:
        return False
    try:
        os.kill(worker.info.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        # Somebody else's.
        return False
    return False

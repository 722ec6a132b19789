"""Lets time pass in a store: everything that it holds happened earlier."""

from __future__ import annotations

from sqlalchemy import text

from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.states import WorkerPhase
from doteval.store import HeldRange, Store, WorkerInfo

_TIMES = {
    "evaluation": ("created_at", "finished_at", "span_began_at"),
    "counters": ("wrote_at",),
    "worker": ("started_at", "beat_at", "left_at"),
}


def let_pass(store: Store, seconds: float) -> None:
    """Move every time in the store so many seconds into the past."""
    with store._database.write() as connection:
        for table, columns in _TIMES.items():
            moved = ", ".join(f"{column} = {column} - :seconds" for column in columns)
            connection.execute(text(f"UPDATE {table} SET {moved}"), {"seconds": seconds})
    forget_heartbeats(store)


def forget_heartbeats(store: Store) -> None:
    """Let this process know of heartbeats only what the store says. By its own clock no time has passed for them."""
    for ages in (store.workers._ages, store.workers._submitters_ages):
        ages.forget(range(1, 1000))


def work_again(store: Store, evaluation: Evaluation, seconds: float) -> None:
    """An evaluation that has ended is resumed, worked on for so many seconds, and ended as before."""
    evaluations, workers = store.evaluations, store.workers
    worker = workers.begin(WorkerInfo("w", "h", 1))
    evaluations.set_status(evaluation.id, EvaluationStatus.RUNNING)
    let_pass(store, seconds)
    workers.beat(worker, state=WorkerPhase.READY, holding=[HeldRange.whole(evaluation.uid)])
    evaluations.set_status(evaluation.id, evaluation.status)
    workers.end(worker, reason="left")

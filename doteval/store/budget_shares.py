"""Reserves parts of the budget of an experiment for the rows that worker processes have in flight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from doteval.core.budgets import Spent
from doteval.core.experiments import Experiment
from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.store.counters import NOBODY
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.tables import BUDGET_SHARE, COUNTERS, EVALUATION, EXPERIMENT, WORKER


@dataclass(frozen=True, slots=True)
class BudgetState:
    """What an experiment has spent on how many rows that have ended, and for how many rows others have reserved."""

    spent: Spent
    rows: int
    reserved: int


class BudgetShares:
    """Reads and reserves. The share of a worker process ends with it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def look(self, experiment: Experiment, worker_id: int) -> BudgetState:
        """The state of an experiment as the worker process sees it; one query."""
        with self._database.read() as connection:
            return _state(connection, experiment.id, worker_id)

    def reserve(
        self, experiment: Experiment, worker_id: int, rows: Callable[[BudgetState], int]
    ) -> tuple[BudgetState, int]:
        """Replace the share of a worker process by what `rows` makes of the state, which nobody changes meanwhile."""
        with self._database.write() as connection:
            # Processes that reserve wait for each other. On SQLite they do so anyway.
            lock = select(EXPERIMENT.c.id).where(EXPERIMENT.c.id == experiment.id)
            connection.execute(lock.with_for_update(key_share=True))
            state = _state(connection, experiment.id, worker_id)
            reserved = rows(state)
            line = insert_into(connection.dialect.name, BUDGET_SHARE).values(
                experiment_id=experiment.id, worker_id=worker_id, rows=reserved
            )
            connection.execute(
                line.on_conflict_do_update(
                    index_elements=["experiment_id", "worker_id"], set_={"rows": line.excluded.rows}
                )
            )
        return state, reserved


def _state(connection: Connection, experiment_id: int, worker_id: int) -> BudgetState:
    # Retries subtract from the counters of nobody: those rows were paid all the same.
    ended = func.sum(COUNTERS.c.done + COUNTERS.c.failed + COUNTERS.c.skipped).filter(COUNTERS.c.worker_id != NOBODY)
    sums = [func.sum(COUNTERS.c[name]) for name in ("attempts", "tokens", "cost", "unpriced")]
    others = (
        select(func.sum(BUDGET_SHARE.c.rows))
        .join(WORKER, WORKER.c.id == BUDGET_SHARE.c.worker_id)
        .where(
            BUDGET_SHARE.c.experiment_id == experiment_id,
            BUDGET_SHARE.c.worker_id != worker_id,
            BUDGET_SHARE.c.rows > 0,
            WORKER.c.left_at.is_(None),
            # If somebody sets the database's clock, fewer rows or more begin for a moment.
            WORKER.c.beat_at >= database_time() - DEAD_AFTER_SECONDS,
        )
        .scalar_subquery()
    )
    query = (
        select(*[func.coalesce(each, 0) for each in (*sums, ended, others)])
        .select_from(COUNTERS.join(EVALUATION, EVALUATION.c.id == COUNTERS.c.evaluation_id))
        .where(EVALUATION.c.experiment_id == experiment_id)
    )
    found: Sequence[Any] = connection.execute(query).one()
    attempts, tokens, cost, unpriced, rows, reserved = found
    # In PostgreSQL the sum of 64-bit integers is a Decimal.
    return BudgetState(Spent(int(attempts), int(tokens), float(cost), int(unpriced)), int(rows), int(reserved))

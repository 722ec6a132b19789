"""Counters of results and usage, which are updated in the transactions that change these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sqlalchemy import ColumnElement, Connection, Float, Table, bindparam, case, delete, func, select, update
from sqlalchemy.dialects.sqlite import Insert

from doteval.core.budgets import Spent
from doteval.core.results import RowStatus
from doteval.store.batch_tables import WANTED_CALL
from doteval.store.engine import database_time, insert_into
from doteval.store.statements import Prepared
from doteval.store.tables import ATTEMPT, CALL, COUNTERS, RESULT, ROW_LABEL, SCORE, USAGE

_COUNTED = (RowStatus.DONE.value, RowStatus.FAILED.value, RowStatus.SKIPPED.value)

# The worker id of changes that no worker process made, and of everything that is subtracted.
NOBODY = 0

_NOTHING = Spent()


def _columns(spent: Spent) -> dict[str, float]:
    return {
        "attempts": spent.requests,
        "tokens": spent.tokens,
        "cost": spent.cost,
        "unpriced": spent.unpriced,
    }


_CHANGED = (*_COUNTED, *_columns(_NOTHING))


def _addition(dialect: str) -> Insert:
    # Usage alone does not count: that of a killed process is found when its machine starts another one, days later.
    stored = bindparam("has_results", type_=Float()) * database_time()
    line = insert_into(dialect, COUNTERS).values(wrote_at=stored)
    return line.on_conflict_do_update(
        index_elements=["evaluation_id", "worker_id"],
        set_={name: COUNTERS.c[name] + line.excluded[name] for name in _CHANGED}
        | {"wrote_at": func.coalesce(line.excluded.wrote_at, COUNTERS.c.wrote_at)},
    )


_ADDITION = Prepared(_addition, "evaluation_id", "worker_id", *_CHANGED)


def add_to_counters(
    connection: Connection,
    evaluation_id: int,
    worker_id: int | None,
    changes: Counter[str],
    spent: Spent = _NOTHING,
) -> None:
    """Add `changes` (which may be negative) to the counters by status, and `spent` to those of usage."""
    if not any(changes.values()) and spent == _NOTHING:
        return
    added = {status: changes[status] for status in _COUNTED} | _columns(spent)
    whose = {"evaluation_id": evaluation_id, "worker_id": NOBODY if worker_id is None else worker_id}
    has_results = 1.0 if any(changes.values()) else None
    _ADDITION.run(connection, **whose, **added, has_results=has_results)


def count_spent_again(connection: Connection, evaluation_id: int, worker_id: int | None) -> None:
    """Recount what a worker process spent for an evaluation. It scans the usage, so use it after conflicts only."""
    who = NOBODY if worker_id is None else worker_id
    tokens = USAGE.c.prompt_tokens + USAGE.c.completion_tokens
    query = select(
        func.coalesce(func.sum(USAGE.c.attempts), 0),
        func.coalesce(func.sum(tokens), 0),
        func.coalesce(func.sum(USAGE.c.cost), 0.0),
        func.coalesce(func.sum(case((USAGE.c.cost.is_(None), tokens), else_=0)), 0),
    ).where(USAGE.c.evaluation_id == evaluation_id, func.coalesce(USAGE.c.worker_id, NOBODY) == who)
    requests, tokens_spent, cost, unpriced = connection.execute(query).one()
    # The row must exist before it can be updated.
    nothing = dict.fromkeys(_CHANGED, 0)
    connection.execute(
        insert_into(connection.dialect.name, COUNTERS)
        .values(evaluation_id=evaluation_id, worker_id=who, **nothing)
        .on_conflict_do_nothing(index_elements=["evaluation_id", "worker_id"])
    )
    connection.execute(
        update(COUNTERS)
        .where(COUNTERS.c.evaluation_id == evaluation_id, COUNTERS.c.worker_id == who)
        .values(_columns(Spent(int(requests), int(tokens_spent), float(cost), int(unpriced))))
    )


def remove_results(connection: Connection, evaluation_id: int, which: Callable[[Table], ColumnElement[bool]]) -> int:
    """Remove results with their scores, labels, earlier attempts and calls, and subtract them from the counters.

    Usage stays, since it was spent. Returns the number of removed results.
    """
    for table in (SCORE, ATTEMPT, CALL, WANTED_CALL, ROW_LABEL):
        connection.execute(delete(table).where(table.c.evaluation_id == evaluation_id, which(table)))
    gone = connection.execute(
        delete(RESULT)
        .where(RESULT.c.evaluation_id == evaluation_id, which(RESULT))
        .returning(RESULT.c.status, RESULT.c.retry)
    ).all()
    taken = Counter(line.status for line in gone if not line.retry)
    add_to_counters(connection, evaluation_id, None, Counter({status: -count for status, count in taken.items()}))
    return len(gone)

"""The counts that go with results: every change of a result changes them in the same transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from sqlalchemy import ColumnElement, Connection, Table, delete

from doteval.results import RowStatus
from doteval.store.engine import Database
from doteval.store.tables import ATTEMPT, RESULT, SCORE, TALLY

# Stands for no worker: what is written without one, and what is taken away again.
NOBODY = 0

_COUNTED = (RowStatus.DONE.value, RowStatus.FAILED.value, RowStatus.SKIPPED.value)


def add_to_tally(
    database: Database, connection: Connection, evaluation_id: int, worker_id: int | None, changes: Counter[str]
) -> None:
    """Add to (or, with negative numbers, take from) the counts by status."""
    if not any(changes.values()):
        return
    line = database.insert(TALLY).values(
        evaluation_id=evaluation_id,
        worker_id=NOBODY if worker_id is None else worker_id,
        **{status: changes[status] for status in _COUNTED},
    )
    connection.execute(
        line.on_conflict_do_update(
            index_elements=["evaluation_id", "worker_id"],
            set_={status: TALLY.c[status] + line.excluded[status] for status in _COUNTED},
        )
    )


def remove_results(
    database: Database, connection: Connection, evaluation_id: int, which: Callable[[Table], ColumnElement[bool]]
) -> int:
    """Remove results with their scores and earlier attempts, and take them from the counts.

    Usage stays: it was spent. Returns how many results there were.
    """
    for table in (SCORE, ATTEMPT):
        connection.execute(delete(table).where(table.c.evaluation_id == evaluation_id, which(table)))
    gone = connection.execute(
        delete(RESULT)
        .where(RESULT.c.evaluation_id == evaluation_id, which(RESULT))
        .returning(RESULT.c.status, RESULT.c.retry)
    ).all()
    taken = Counter(line.status for line in gone if not line.retry)
    add_to_tally(
        database, connection, evaluation_id, None, Counter({status: -count for status, count in taken.items()})
    )
    return len(gone)

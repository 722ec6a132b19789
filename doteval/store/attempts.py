"""What went wrong, row by row: the errors of failed rows by class and by time, and every attempt of a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Table, func, select

from doteval.core.results import ErrorClass, RowError, RowStatus
from doteval.store.engine import Database
from doteval.store.experiments import moment
from doteval.store.tables import ATTEMPT, RESULT, WORKER


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a row that came to a result.

    `started_at` is by the worker's clock, `seconds` what it took, `worker` ``hostname:pid`` or None.
    `replaced` tells that a later one took its place, `to_be_retried` that one shall.
    """

    index: int
    sample: int
    status: RowStatus
    started_at: datetime
    seconds: float
    worker: str | None
    error: RowError | None
    replaced: bool
    to_be_retried: bool


class Attempts:
    """Executions of rows, those too whose result was replaced by a retry."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_row(self, evaluation_id: int, index: int) -> list[Attempt]:
        """Every attempt of a row that has ended, by sample, the oldest first; the last is its result."""
        with self._database.read() as connection:
            earlier = connection.execute(
                _query(ATTEMPT, evaluation_id, ATTEMPT.c.row_index == index).order_by(ATTEMPT.c.sample, ATTEMPT.c.id)
            ).all()
            results = connection.execute(
                _query(RESULT, evaluation_id, RESULT.c.row_index == index).add_columns(RESULT.c.retry)
            ).all()
        found = [_attempt(line, replaced=True) for line in earlier]
        found += [_attempt(line, to_be_retried=line.retry) for line in results]
        # Sorting keeps the order of those that are equal.
        return sorted(found, key=lambda attempt: attempt.sample)

    def classes(self, evaluation_id: int) -> dict[ErrorClass, int]:
        """How many rows failed with an error of each class, those to be retried included; the most frequent first."""
        known = func.coalesce(RESULT.c.error_class, ErrorClass.EVALUATION.value).label("error_class")
        query = select(known, func.count().label("rows")).where(*_failed(evaluation_id)).group_by(known)
        with self._database.read() as connection:
            counts = {ErrorClass(line.error_class): int(line.rows) for line in connection.execute(query)}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def last_failures(self, evaluation_id: int, limit: int) -> list[Attempt]:
        """The failed rows that ended last, the newest first, at most `limit`. Without tracebacks."""
        ended = RESULT.c.started_at + RESULT.c.seconds
        query = (
            _query(RESULT, evaluation_id, *_failed(evaluation_id)[1:], traceback=False)
            .add_columns(RESULT.c.retry)
            .order_by(ended.desc(), RESULT.c.row_index)
            .limit(limit)
        )
        with self._database.read() as connection:
            return [_attempt(line, to_be_retried=line.retry) for line in connection.execute(query)]


def _failed(evaluation_id: int) -> list[ColumnElement[bool]]:
    return [
        RESULT.c.evaluation_id == evaluation_id,
        # Said twice, so that both databases see that the index of the rows not done serves.
        RESULT.c.status != RowStatus.DONE.value,
        RESULT.c.status == RowStatus.FAILED.value,
    ]


def _query(table: Table, evaluation_id: int, *conditions: ColumnElement[bool], traceback: bool = True) -> Any:
    names = ["row_index", "sample", "status", "started_at", "seconds", "error_type", "error_message", "error_class"]
    if traceback:
        names.append("traceback")
    return (
        select(*(table.c[name] for name in names), WORKER.c.hostname, WORKER.c.pid)
        .select_from(table.outerjoin(WORKER, WORKER.c.id == table.c.worker_id))
        .where(table.c.evaluation_id == evaluation_id, *conditions)
    )


def _attempt(line: Row[Any], *, replaced: bool = False, to_be_retried: bool = False) -> Attempt:
    error = None
    if line.error_type is not None:
        error = RowError(
            line.error_type,
            line.error_message or "",
            ErrorClass(line.error_class or ErrorClass.EVALUATION),
            getattr(line, "traceback", None) or "",
        )
    return Attempt(
        index=line.row_index,
        sample=line.sample,
        status=RowStatus(line.status),
        started_at=moment(line.started_at),
        seconds=line.seconds,
        worker=None if line.pid is None else f"{line.hostname}:{line.pid}",
        error=error,
        replaced=replaced,
        to_be_retried=to_be_retried,
    )

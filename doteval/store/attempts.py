"""Reads the attempts of a row, and the errors of failed rows by class and by time."""

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
    """One execution of a row that ended with a result.

    started_at: by the worker's clock.
    worker: ``hostname:pid``, None if it is not known.
    replaced: whether the result of a later attempt replaced its own.
    to_be_retried: whether the row is pending again.
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
    """Reads executions of rows, including those whose result a retry has replaced."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_row(self, evaluation_id: int, index: int) -> list[Attempt]:
        """Every attempt of a row that has ended, by sample, the oldest first. The last one is the result."""
        with self._database.read() as connection:
            earlier = connection.execute(
                _query(ATTEMPT, evaluation_id, ATTEMPT.c.row_index == index).order_by(ATTEMPT.c.sample, ATTEMPT.c.id)
            ).all()
            results = connection.execute(
                _query(RESULT, evaluation_id, RESULT.c.row_index == index).add_columns(RESULT.c.retry)
            ).all()
        found = [_attempt(line, replaced=True) for line in earlier]
        found += [_attempt(line, to_be_retried=line.retry) for line in results]
        # The sort is stable, so the attempts of a sample stay in order.
        return sorted(found, key=lambda attempt: attempt.sample)

    def classes(self, evaluation_id: int) -> dict[ErrorClass, int]:
        """The number of failed rows by error class, the most frequent first. It includes rows to be retried."""
        known = func.coalesce(RESULT.c.error_class, ErrorClass.EVALUATION.value).label("error_class")
        query = select(known, func.count().label("rows")).where(*_failed(evaluation_id)).group_by(known)
        with self._database.read() as connection:
            counts = {ErrorClass(line.error_class): int(line.rows) for line in connection.execute(query)}
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))

    def last_failures(self, evaluation_id: int, limit: int) -> list[Attempt]:
        """The last `limit` failed rows, the newest first, without tracebacks."""
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
        # The condition is given twice, so that both databases use the partial index of rows that are not done.
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

"""Crashes in the store: rows that were in flight when their worker process died."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, bindparam, func, insert, select

from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus
from doteval.core.run_config import RunConfig
from doteval.errors import RowTimeoutError
from doteval.store.engine import Database
from doteval.store.result_rows import NewResult, encode_result, write_results
from doteval.store.tables import ATTEMPT, EVALUATION, RESULT, ROW


@dataclass(frozen=True, slots=True)
class CrashedRow:
    """A row and sample that were in flight when a worker process died."""

    evaluation_id: int
    row_index: int
    sample: int


@dataclass(frozen=True, slots=True)
class TimedOutRow:
    """A row and sample that were over their time, and could only be ended together with their worker process.

    `started_at` is in seconds since the epoch; `seconds` is how long it had taken by then.
    """

    evaluation_id: int
    row_index: int
    sample: int
    started_at: float
    seconds: float


class Crashes:
    """The crashes that rows took part in, and the rows that were ended together with their process."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, rows: Iterable[CrashedRow], *, reason: str, worker_id: int | None) -> list[CrashedRow]:
        """Note that a worker process died with these rows in flight; give up on those that did so too often.

        How often that is, the evaluation's `RunConfig.max_crashes` says. Crashes before a retry do not count:
        whoever retries a row gives it all its chances again. A row that is given up gets a failed result of the
        crash class, which says `reason`. Rows that have a result by now, or that were removed, are left alone.
        Returns the rows that were given up.
        """
        given_up: list[CrashedRow] = []
        with self._database.write() as connection:
            for evaluation_id, crashed in _by_evaluation(rows).items():
                self._database.hold(connection, [evaluation_id], alone=True)
                most = _most_crashes(connection, evaluation_id)
                waiting = [row for row in crashed if _is_pending(connection, row)]
                for row in waiting:
                    stands = _standing_execution(connection, row)
                    connection.execute(insert(ATTEMPT).values(_attempt(row, stands, reason, worker_id)))
                hopeless = [row for row in waiting if _crashes(connection, row) >= most]
                results = [encode_result(_given_up(connection, row, reason, most)) for row in hopeless]
                write_results(self._database, connection, results, worker_id)
                given_up.extend(hopeless)
        return given_up

    def time_out(self, rows: Iterable[TimedOutRow]) -> None:
        """Store rows as failed, with an error of the timeout class. Those that have a result by now are left alone."""
        with self._database.write() as connection:
            for evaluation_id, ended in _by_evaluation(rows).items():
                self._database.hold(connection, [evaluation_id], alone=True)
                waiting = [row for row in ended if _is_pending(connection, row)]
                results = [encode_result(_timed_out(connection, row)) for row in waiting]
                write_results(self._database, connection, results, None)

    def suspects(self, evaluation_id: int, first: int, last: int) -> Counter[tuple[int, int]]:
        """How often rows of a range, both ends included, took part in a crash ever, by (row index, sample)."""
        with self._database.read() as connection:
            found = connection.execute(_SUSPECTS, {"evaluation": evaluation_id, "first": first, "last": last})
            return Counter({(index, sample): count for index, sample, count in found})


AnyRow = TypeVar("AnyRow", CrashedRow, TimedOutRow)

# Made once: worker processes ask for every row task.
_SUSPECTS = (
    select(ATTEMPT.c.row_index, ATTEMPT.c.sample, func.count())
    .where(
        ATTEMPT.c.evaluation_id == bindparam("evaluation"),
        ATTEMPT.c.row_index.between(bindparam("first"), bindparam("last")),
        ATTEMPT.c.error_class == ErrorClass.CRASH.value,
    )
    .group_by(ATTEMPT.c.row_index, ATTEMPT.c.sample)
)


def _most_crashes(connection: Connection, evaluation_id: int) -> int:
    stored = connection.scalar(select(EVALUATION.c.run_config).where(EVALUATION.c.id == evaluation_id))
    config = RunConfig() if stored is None else RunConfig.from_json(decode(stored))
    return config.max_crashes


def _by_evaluation(rows: Iterable[AnyRow]) -> dict[int, list[AnyRow]]:
    grouped: dict[int, list[AnyRow]] = {}
    for row in sorted(rows, key=lambda row: (row.evaluation_id, row.row_index, row.sample)):
        grouped.setdefault(row.evaluation_id, []).append(row)
    return grouped


def _is_pending(connection: Connection, row: CrashedRow | TimedOutRow) -> bool:
    exists = connection.scalar(
        select(ROW.c.row_index).where(ROW.c.evaluation_id == row.evaluation_id, ROW.c.row_index == row.row_index)
    )
    retry = connection.scalar(
        select(RESULT.c.retry).where(
            RESULT.c.evaluation_id == row.evaluation_id,
            RESULT.c.row_index == row.row_index,
            RESULT.c.sample == row.sample,
        )
    )
    return exists is not None and retry is not False


def _standing_execution(connection: Connection, row: CrashedRow) -> int:
    """The execution of the failed result that a retry is to replace, 0 if there is no result."""
    execution = connection.scalar(
        select(RESULT.c.execution).where(
            RESULT.c.evaluation_id == row.evaluation_id,
            RESULT.c.row_index == row.row_index,
            RESULT.c.sample == row.sample,
        )
    )
    return int(execution or 0)


def _crashes(connection: Connection, row: CrashedRow) -> int:
    """How many crashes the row took part in since it was retried last."""
    count = connection.scalar(
        select(func.count())
        .select_from(ATTEMPT)
        .where(
            ATTEMPT.c.evaluation_id == row.evaluation_id,
            ATTEMPT.c.row_index == row.row_index,
            ATTEMPT.c.sample == row.sample,
            ATTEMPT.c.error_class == ErrorClass.CRASH.value,
            ATTEMPT.c.execution == _standing_execution(connection, row),
        )
    )
    return int(count or 0)


def _attempt(row: CrashedRow, stands: int, reason: str, worker_id: int | None) -> dict[str, object]:
    return {
        "evaluation_id": row.evaluation_id,
        "row_index": row.row_index,
        "sample": row.sample,
        "status": RowStatus.FAILED.value,
        # A crash has no execution of its own that anybody knows; this tells those before a retry from those after.
        "execution": stands,
        "worker_id": worker_id,
        "started_at": time.time(),
        "seconds": 0.0,
        "error_type": "Crash",
        "error_message": f"the worker process {reason}",
        "error_class": ErrorClass.CRASH.value,
        "scores": "[]",
    }


def _given_up(connection: Connection, row: CrashedRow, reason: str, most: int) -> NewResult:
    error = RowError(
        type="Crash",
        message=f"the row was in flight in {most} worker processes that died; the last one {reason}",
        error_class=ErrorClass.CRASH,
    )
    return _failed(connection, row, Outcome(RowStatus.FAILED, time.time(), 0.0, error=error))


def _timed_out(connection: Connection, row: TimedOutRow) -> NewResult:
    error = RowError(
        type=RowTimeoutError.__name__,
        message=f"the row could not be interrupted when its time was over; its worker process was killed after "
        f"{row.seconds:.0f} s",
        error_class=ErrorClass.TIMEOUT,
    )
    return _failed(connection, row, Outcome(RowStatus.FAILED, row.started_at, row.seconds, error=error))


def _failed(connection: Connection, row: CrashedRow | TimedOutRow, outcome: Outcome) -> NewResult:
    key = connection.scalar(
        select(ROW.c.key).where(ROW.c.evaluation_id == row.evaluation_id, ROW.c.row_index == row.row_index)
    )
    return NewResult(row.evaluation_id, Row(row.row_index, str(key), {}, row.sample), outcome)

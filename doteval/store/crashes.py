"""Records crashes: the rows that were in flight when their worker process ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection, bindparam, func, insert, select

from doteval.core import clocks
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus
from doteval.core.run_config import RunConfig
from doteval.core.wording import counted
from doteval.errors import RowTimeoutError
from doteval.store.engine import Database
from doteval.store.result_rows import NewResult, encode_result, write_results
from doteval.store.tables import ATTEMPT, CALL, EVALUATION, RESULT, ROW


@dataclass(frozen=True, slots=True)
class CrashedRow:
    """A row and sample that was in flight when a worker process ended."""

    evaluation_id: int
    row_index: int
    sample: int


@dataclass(frozen=True, slots=True)
class TimedOutRow:
    """A row and sample that exceeded its timeout and could not be interrupted, so that its process was killed.

    started_at: in seconds since the epoch.
    seconds: how long it had run when it was killed.
    """

    evaluation_id: int
    row_index: int
    sample: int
    started_at: float
    seconds: float


class Crashes:
    """Records the crashes of rows, and gives up rows that crashed too often."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def record(self, rows: Iterable[CrashedRow], *, reason: str, worker_id: int | None) -> list[CrashedRow]:
        """Record that a worker process ended with these rows in flight, and give up those that crashed too often.

        A row is given up after `RunConfig.max_crashes` crashes since its last retry: it gets a failed result of the
        crash class. Rows that have a result by now, or that were removed, stay as they are.

        reason: how the process ended, for people.

        Returns the rows that were given up.
        """
        given_up: list[CrashedRow] = []
        with self._database.write() as connection:
            for evaluation_id, crashed in _by_evaluation(rows).items():
                self._database.hold(connection, [evaluation_id], alone=True)
                most = _most_crashes(connection, evaluation_id)
                waiting = [row for row in crashed if _is_pending(connection, row)]
                for row in waiting:
                    execution = _execution_to_retry(connection, row)
                    connection.execute(insert(ATTEMPT).values(_attempt(row, execution, reason, worker_id)))
                given_up_now = [row for row in waiting if _crashes(connection, row) >= most]
                results = [encode_result(_given_up(connection, row, reason, most)) for row in given_up_now]
                write_results(self._database, connection, results, worker_id)
                given_up.extend(given_up_now)
        return given_up

    def time_out(self, rows: Iterable[TimedOutRow]) -> None:
        """Store rows as failed with an error of the timeout class. Rows that have a result by now stay as they are."""
        with self._database.write() as connection:
            for evaluation_id, ended in _by_evaluation(rows).items():
                self._database.hold(connection, [evaluation_id], alone=True)
                waiting = [row for row in ended if _is_pending(connection, row)]
                results = [encode_result(_timed_out(connection, row)) for row in waiting]
                write_results(self._database, connection, results, None)

    def suspects(self, evaluation_id: int, first: int, last: int) -> Counter[tuple[int, int]]:
        """The number of crashes of the rows from `first` to `last` (included), by row index and sample."""
        with self._database.read() as connection:
            found = connection.execute(_SUSPECTS, {"evaluation": evaluation_id, "first": first, "last": last})
            return Counter({(index, sample): count for index, sample, count in found})


AnyRow = TypeVar("AnyRow", CrashedRow, TimedOutRow)

# Built once: worker processes run it for every row task.
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


def _execution_to_retry(connection: Connection, row: CrashedRow) -> int:
    """The execution of the failed result that a retry is to replace, 0 without a result."""
    execution = connection.scalar(
        select(RESULT.c.execution).where(
            RESULT.c.evaluation_id == row.evaluation_id,
            RESULT.c.row_index == row.row_index,
            RESULT.c.sample == row.sample,
        )
    )
    return int(execution or 0)


def _crashes(connection: Connection, row: CrashedRow) -> int:
    """The number of crashes of a row since its last retry."""
    count = connection.scalar(
        select(func.count())
        .select_from(ATTEMPT)
        .where(
            ATTEMPT.c.evaluation_id == row.evaluation_id,
            ATTEMPT.c.row_index == row.row_index,
            ATTEMPT.c.sample == row.sample,
            ATTEMPT.c.error_class == ErrorClass.CRASH.value,
            ATTEMPT.c.execution == _execution_to_retry(connection, row),
        )
    )
    return int(count or 0)


def _attempt(row: CrashedRow, execution: int, reason: str, worker_id: int | None) -> dict[str, object]:
    return {
        "evaluation_id": row.evaluation_id,
        "row_index": row.row_index,
        "sample": row.sample,
        "status": RowStatus.FAILED.value,
        # The execution that crashed is unknown. That of the stored result separates crashes before and after a retry.
        "execution": execution,
        "worker_id": worker_id,
        "started_at": clocks.now(),
        "seconds": 0.0,
        "error_type": "Crash",
        "error_message": f"the worker process {reason}",
        "error_class": ErrorClass.CRASH.value,
        "scores": "[]",
    }


def _given_up(connection: Connection, row: CrashedRow, reason: str, most: int) -> NewResult:
    error = RowError(
        type="Crash",
        message=f"the row was in flight in {counted(most, 'worker process')} that died; the last one {reason}",
        error_class=ErrorClass.CRASH,
    )
    return _failed(connection, row, Outcome(RowStatus.FAILED, clocks.now(), 0.0, error=error))


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
    # The last execution that journalled calls, so that they count as those of this result.
    last = connection.scalar(
        select(CALL.c.execution)
        .where(
            CALL.c.evaluation_id == row.evaluation_id,
            CALL.c.row_index == row.row_index,
            CALL.c.sample == row.sample,
            ~select(ATTEMPT.c.id)
            .where(
                ATTEMPT.c.evaluation_id == CALL.c.evaluation_id,
                ATTEMPT.c.row_index == CALL.c.row_index,
                ATTEMPT.c.sample == CALL.c.sample,
                ATTEMPT.c.execution == CALL.c.execution,
            )
            .exists(),
        )
        .order_by(CALL.c.started_at.desc())
        .limit(1)
    )
    return NewResult(row.evaluation_id, Row(row.row_index, str(key), {}, row.sample), outcome, last)

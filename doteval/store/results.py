"""Reads and writes results. The first result of a row and sample wins, so that everything counts once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, func, select, tuple_

from doteval.analysis.summary import ScoreColumn
from doteval.core.experiments import Evaluation
from doteval.core.filters import Filter
from doteval.core.histogram import Latency
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.core.row_labels import RowLabel
from doteval.store.bulk_insert import among
from doteval.store.calls import EncodedCalls
from doteval.store.driver_errors import RefusedError
from doteval.store.engine import Database
from doteval.store.flat_results import FlatResults
from doteval.store.result_rows import EncodedResult, NewResult, encode_result, write_results
from doteval.store.row_labels import labels_of_results
from doteval.store.score_columns import read_score_columns
from doteval.store.tables import COUNTERS, RESULT, RESULT_AND_ROW, ROW, SCORE, USAGE, WORKER
from doteval.store.wanted_calls import ParkedRow, write_parked


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """The number of failed rows with the same error.

    message: cut at 200 characters.
    example: the index of one of the rows.
    """

    type: str
    message: str
    error_class: ErrorClass
    count: int
    example: int

    def __str__(self) -> str:
        """The error in one line, with the first line of its message.

        >>> print(ErrorCount("NameError", "name 'x' is not defined", ErrorClass.EVALUATION, 2, 0))
        2 × NameError: name 'x' is not defined (first in row 0)
        """
        message = self.message.partition("\n")[0][:_LINE_SHOWN]
        return f"{self.count:,} × {self.type}: {message} (first in row {self.example})"


_PAGE = 500
_LINE_SHOWN = 100
_MESSAGE_SHOWN = 200
_LATEST_ROWS = 200


class StoredResults:
    """Reads and writes the results of rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, results: Sequence[NewResult], worker_id: int | None) -> int:
        """Store results with their scores, usage and counters in one transaction.

        The first result of a row and sample wins, unless it is a failed one that is to be retried, which becomes an
        attempt. A result is dropped if its row was removed or has other content now. Usage of every execution is
        kept, since it was spent.

        Returns the number of results that became the result of their row.

        Raises UnstorableValueError: a value cannot be stored; nothing was written.
        Raises StoreError: the transaction failed.
        """
        return self.write_encoded([encode_result(result) for result in results], worker_id)

    def write_encoded(
        self,
        results: Sequence[EncodedResult],
        worker_id: int | None,
        calls: EncodedCalls | None = None,
        parked: Sequence[ParkedRow] = (),
    ) -> int:
        """`write` for results that `encode_result` has prepared, together with calls of these and other rows.

        parked: rows that wait for calls in batches.
        """
        if not results and calls is None and not parked:
            return 0
        also = {each.evaluation_id for each in parked}
        with self._database.write() as connection:
            count = write_results(self._database, connection, results, worker_id, calls, also)
            if parked:
                write_parked(connection, parked, worker_id)
            return count

    def records(
        self,
        evaluation_id: int,
        *,
        status: RowStatus | None = None,
        first: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """The stored results with their rows, by index and sample, from index `first` on, at most `limit`.

        With `status`, only those; pending rows have no record. Streams in pages: no query stays open.
        """
        query = _records_query(evaluation_id, status)
        after = (-1 if first is None else first - 1, 2**31 - 1)
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(_PAGE, left)
            with self._database.read() as connection:
                lines = connection.execute(query.limit(size), {"after_index": after[0], "after_sample": after[1]}).all()
                scores = _scores(connection, evaluation_id, lines)
                usage = _usage(connection, evaluation_id, lines)
                labels = labels_of_results(connection, evaluation_id, lines)
            for line in lines:
                key = (line.row_index, line.sample)
                yield _record(line, scores.get(key, ()), usage.get((*key, line.execution), ()), labels.get(key, ()))
            if len(lines) < size:
                return
            after = (lines[-1].row_index, lines[-1].sample)
            left = None if left is None else left - size

    def flat(self, evaluations: Sequence[Evaluation], where: Filter | None = None) -> FlatResults:
        """The results of evaluations of one experiment as a table, for exports and data frames; those of a filter."""
        return FlatResults(self._database, evaluations, where)

    def of_keys(self, evaluation_id: int, keys: Sequence[tuple[int, int]]) -> list[Record]:
        """The results of rows by index and sample, in the order of the keys; those that are gone are left out."""
        records = self._of_indexes(evaluation_id, sorted({index for index, _ in keys}))
        found = {(record.row.index, record.row.sample): record for record in records}
        return [found[key] for key in keys if key in found]

    def of_row(self, evaluation_id: int, index: int) -> list[Record]:
        """The results of a row, one for each sample that has one."""
        return self._of_indexes(evaluation_id, [index])

    def _of_indexes(self, evaluation_id: int, indexes: Sequence[int]) -> list[Record]:
        with self._database.read() as connection:
            # Without the condition on the place SQLite finds each index by the key; with it, it would read all rows.
            among_them = _joined_query(evaluation_id).where(among(connection, RESULT.c.row_index, indexes))
            lines = connection.execute(among_them).all()
            scores = _scores(connection, evaluation_id, lines)
            usage = _usage(connection, evaluation_id, lines)
            labels = labels_of_results(connection, evaluation_id, lines)
        return [
            _record(
                line,
                scores.get((line.row_index, line.sample), ()),
                usage.get((line.row_index, line.sample, line.execution), ()),
                labels.get((line.row_index, line.sample), ()),
            )
            for line in lines
        ]

    def score_columns(self, evaluation_id: int) -> list[ScoreColumn]:
        """The scores of done rows by name, in the order in which the names first appear."""
        try:
            with self._database.read() as connection:
                return read_score_columns(connection, evaluation_id)
        except RefusedError:
            # With values of hundreds of kilobytes, a page exceeds the longest text that a database can aggregate.
            with self._database.read() as connection:
                return read_score_columns(connection, evaluation_id, aggregate=False)

    def mean_seconds(self, evaluation_id: int) -> float | None:
        """The mean seconds of a row, over the 200 rows with the highest indexes; None if no row has a result."""
        with self._database.read() as connection:
            mean = connection.scalar(_MEAN_SECONDS, {"evaluation": evaluation_id})
        return None if mean is None else float(mean)

    def writers(self, evaluation_id: int) -> set[int]:
        """The ids of the worker processes that have stored results of an evaluation."""
        query = select(COUNTERS.c.worker_id).where(COUNTERS.c.evaluation_id == evaluation_id)
        with self._database.read() as connection:
            return set(connection.scalars(query))

    def errors(self, evaluation_id: int, limit: int) -> list[ErrorCount]:
        """The errors of failed rows with their counts, the most frequent first. It includes rows to be retried."""
        message = func.substr(
            func.coalesce(RESULT.c.error_message, ""), 1, _MESSAGE_SHOWN, type_=RESULT.c.error_message.type
        )
        count = func.count()
        query = (
            select(
                RESULT.c.error_type,
                message.label("message"),
                RESULT.c.error_class,
                count.label("rows"),
                func.min(RESULT.c.row_index).label("example"),
            )
            .where(
                RESULT.c.evaluation_id == evaluation_id,
                RESULT.c.status != RowStatus.DONE.value,
                RESULT.c.status == RowStatus.FAILED.value,
            )
            .group_by(RESULT.c.error_type, message, RESULT.c.error_class)
            .order_by(count.desc(), func.min(RESULT.c.row_index))
            .limit(limit)
        )
        with self._database.read() as connection:
            return [
                ErrorCount(
                    line.error_type or "",
                    line.message,
                    ErrorClass(line.error_class or ErrorClass.EVALUATION),
                    line.rows,
                    line.example,
                )
                for line in connection.execute(query)
            ]


def _joined_query(evaluation_id: int) -> Any:
    return (
        select(*RESULT.c, ROW.c.key, ROW.c.content, WORKER.c.hostname, WORKER.c.pid)
        .select_from(RESULT_AND_ROW.outerjoin(WORKER, WORKER.c.id == RESULT.c.worker_id))
        .where(RESULT.c.evaluation_id == evaluation_id)
        .order_by(RESULT.c.row_index, RESULT.c.sample)
    )


def _records_query(evaluation_id: int, status: RowStatus | None) -> Any:
    place = tuple_(RESULT.c.row_index, RESULT.c.sample)
    query = _joined_query(evaluation_id).where(place > tuple_(bindparam("after_index"), bindparam("after_sample")))
    if status is None:
        return query
    query = query.where(RESULT.c.status == status.value)
    return query if status is RowStatus.DONE else query.where(RESULT.c.status != RowStatus.DONE.value)


def _scores(connection: Connection, evaluation_id: int, lines: Sequence[Any]) -> dict[tuple[int, int], list[Score]]:
    scores: dict[tuple[int, int], list[Score]] = defaultdict(list)
    if lines:
        indexes = {line.row_index for line in lines}
        query = (
            select(SCORE)
            .where(
                SCORE.c.evaluation_id == evaluation_id,
                among(connection, SCORE.c.row_index, indexes),
            )
            .order_by(SCORE.c.position)
        )
        for line in connection.execute(query):
            score = Score(
                line.name,
                decode(line.value),
                tuple(decode(line.metrics)),
                {} if line.extra is None else decode(line.extra),
            )
            scores[(line.row_index, line.sample)].append(score)
    return scores


# Built once: it runs every second while rows run.
_LATEST = (
    select(RESULT.c.seconds)
    .where(RESULT.c.evaluation_id == bindparam("evaluation"))
    .order_by(RESULT.c.row_index.desc())
    .limit(_LATEST_ROWS)
    .subquery()
)
_MEAN_SECONDS = select(func.avg(_LATEST.c.seconds))

# Without the latency, the last field, which is text in the table.
_USAGE_FIELDS = tuple(Usage.__dataclass_fields__)[:-1]


def _usage(connection: Connection, evaluation_id: int, lines: Sequence[Any]) -> dict[tuple[int, int, int], list[Usage]]:
    usage: dict[tuple[int, int, int], list[Usage]] = defaultdict(list)
    if lines:
        indexes = {line.row_index for line in lines}
        query = (
            select(USAGE)
            .where(
                USAGE.c.evaluation_id == evaluation_id,
                among(connection, USAGE.c.row_index, indexes),
            )
            .order_by(USAGE.c.position)
        )
        for line in connection.execute(query):
            values = {name: getattr(line, name) for name in _USAGE_FIELDS}
            used = Usage(**values, latency=Latency.from_text(line.latency))
            usage[(line.row_index, line.sample, line.execution)].append(used)
    return usage


def _optional(text: str | None) -> Any:
    return None if text is None else decode(text)


def _record(line: Any, scores: Iterable[Score], usage: Iterable[Usage], labels: Iterable[RowLabel]) -> Record:
    error = None
    if line.error_type is not None:
        error = RowError(line.error_type, line.error_message or "", ErrorClass(line.error_class), line.traceback or "")
    outcome = Outcome(
        status=RowStatus(line.status),
        started_at=line.started_at,
        seconds=line.seconds,
        scores=tuple(scores),
        prompt=_optional(line.prompt),
        model_response=_optional(line.model_response),
        metadata=_optional(line.extra) or {},
        error=error,
        usage=tuple(usage),
    )
    worker = None if line.pid is None else f"{line.hostname}:{line.pid}"
    return Record(Row(line.row_index, line.key, decode(line.content), line.sample), outcome, worker, tuple(labels))

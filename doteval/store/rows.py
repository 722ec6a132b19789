"""Writes the rows of datasets and finds those that are pending."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal,
    or_,
    select,
    true,
    update,
)

from doteval.core.json_codec import decode, encode, encode_columns, escape_text, unescape_text
from doteval.core.results import ErrorClass, Row, RowStatus
from doteval.errors import NotFoundError, UnstorableValueError
from doteval.store.batch_tables import WANTED_CALL
from doteval.store.bulk_insert import BulkInsert, among
from doteval.store.counters import add_to_counters, remove_results
from doteval.store.engine import Database, insert_into
from doteval.store.statements import Prepared
from doteval.store.tables import EVALUATION, RESULT, ROW
from doteval.store.wanted_calls import count_waiting, forget_retried, waiting_rows

# A range of pending rows may have gaps of finished rows, but spans at most this many times its size.
_WIDEST = 20

# Row indexes in one query for pending ranges: few enough for memory, and enough to make the query's overhead small.
_PAGE = 5000

_COLUMNS = ("evaluation_id", "row_index", "key", "content")
_INSERT = BulkInsert(ROW, _COLUMNS)


@dataclass(frozen=True, slots=True)
class RowRange:
    """The rows from index `first` to index `last`, both included."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class DatasetState:
    """How far a dataset has been read into the store.

    rows: the number that `set_total` set, before that the number of rows so far.
    complete: whether the dataset was read to its end.
    epochs: how often each row is run.
    fingerprint: that of the whole dataset, None if it is not known.
    """

    rows: int
    complete: bool
    fingerprint: str | None
    epochs: int = 1


class Rows:
    """Reads and writes the rows of evaluations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, evaluation_id: int, rows: Sequence[Row], *, so_far: int | None = None) -> None:
        """Add rows. A row whose index exists is left as it is, since two submitters may race.

        so_far: the number of rows with these, of a dataset that is being read; it is set as by `set_total`.

        Raises UnstorableValueError: a value cannot be stored; it names the row and the column.
        Raises NotFoundError: there is no such evaluation.
        """
        if not rows:
            return
        # The bulk insert bypasses the column type that escapes the key. JSON text needs no escaping.
        lines = [(evaluation_id, row.index, escape_text(row.key), _content(row)) for row in rows]
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            self._epochs(connection, evaluation_id)
            _INSERT.run(connection, lines)
            if so_far is not None:
                self._set_total(connection, evaluation_id, so_far, complete=False, fingerprint=None)

    def copy(self, source: int, evaluation_id: int, first: int, last: int) -> None:
        """Give an evaluation the rows of another one from `first` to `last` (included). Those that it has stay.

        Raises NotFoundError: there is no such evaluation.
        """
        added = select(literal(evaluation_id), ROW.c.row_index, ROW.c.key, ROW.c.content).where(
            ROW.c.evaluation_id == source, ROW.c.row_index.between(first, last)
        )
        statement = insert_into(self._database.dialect, ROW).from_select(list(_COLUMNS), added)
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            self._epochs(connection, evaluation_id)
            connection.execute(statement.on_conflict_do_nothing())

    def keys(self, evaluation_id: int, first: int, last: int) -> dict[int, str]:
        """The keys of the rows from `first` to `last` (included), by index."""
        query = select(ROW.c.row_index, ROW.c.key).where(
            ROW.c.evaluation_id == evaluation_id, ROW.c.row_index.between(first, last)
        )
        with self._database.read() as connection:
            return dict(connection.execute(query).all())

    def replace(self, evaluation_id: int, rows: Sequence[Row]) -> None:
        """Replace the content of rows and remove their results, which belonged to the old content.

        Raises UnstorableValueError: a value cannot be stored; it names the row and the column.
        Raises NotFoundError: there is no such evaluation.
        """
        if not rows:
            return
        lines = [(evaluation_id, row.index, row.key, _content(row)) for row in rows]
        statement = insert_into(self._database.dialect, ROW)
        statement = statement.on_conflict_do_update(
            index_elements=["evaluation_id", "row_index"],
            set_={"key": statement.excluded.key, "content": statement.excluded.content},
        )
        indexes = [row.index for row in rows]
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            self._epochs(connection, evaluation_id)
            connection.execute(statement, [dict(zip(_COLUMNS, line, strict=True)) for line in lines])
            remove_results(connection, evaluation_id, lambda table: among(connection, table.c.row_index, indexes))

    def truncate(self, evaluation_id: int, length: int) -> None:
        """Remove the rows from index `length` on with their results, after the dataset has become shorter."""
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            connection.execute(delete(ROW).where(ROW.c.evaluation_id == evaluation_id, ROW.c.row_index >= length))
            remove_results(connection, evaluation_id, lambda table: table.c.row_index >= length)

    def set_total(
        self,
        evaluation_id: int,
        rows: int,
        *,
        complete: bool,
        fingerprint: str | None,
        notes: Sequence[str] | None = None,
        rows_hash: str | None = None,
    ) -> None:
        """Set the number of rows of an evaluation; `complete` is whether that is the whole dataset.

        notes: what a reader of the figures has to know about the dataset; None keeps the notes that are stored.
        rows_hash: a hash of the keys of all rows, None if it is not known.

        Raises NotFoundError if there is no such evaluation.
        """
        with self._database.write() as connection:
            self._set_total(
                connection,
                evaluation_id,
                rows,
                complete=complete,
                fingerprint=fingerprint,
                notes=notes,
                rows_hash=rows_hash,
            )

    def dataset_state(self, evaluation_id: int) -> DatasetState:
        """How far the dataset has been read.

        Raises NotFoundError if there is no such evaluation.
        """
        with self._database.read() as connection:
            line = connection.execute(_DATASET_STATE, {"evaluation": evaluation_id}).one_or_none()
        if line is None:
            raise self._gone(evaluation_id)
        return DatasetState(line.rows, line.dataset_complete, line.dataset_fingerprint, line.epochs)

    def pending(self, evaluation_id: int, first: int, last: int, *, waiting: bool = False) -> list[Row]:
        """The pending rows from `first` to `last` (included), with their values, by index and sample.

        waiting: also those that wait for a batch.

        Raises NotFoundError if there is no such evaluation.
        """
        within = {"evaluation": evaluation_id, "first": first, "last": last}
        with self._database.read() as connection:
            lines = _PENDING.run(connection, **within)
            epochs = lines[0][-1] if lines else self._epochs(connection, evaluation_id)
            known = (
                {(line.row_index, line.sample) for line in connection.execute(_FINISHED, within)}
                if epochs > 1
                else set()
            )
            if lines and not waiting:
                known |= waiting_rows(connection, evaluation_id, first, last)
        return [
            Row(index, unescape_text(key), values, sample)
            for index, key, text, _ in lines
            for values in (decode(text),)
            for sample in range(epochs)
            if (index, sample) not in known
        ]

    def pending_ranges(
        self, evaluation_id: int, rows_per_range: int, *, first: int = 0, limit: int | None = None
    ) -> Iterator[RowRange]:
        """The pending rows from index `first` on as ranges, in order of their index; at most `limit` ranges.

        Each range has at most `rows_per_range` pending rows and spans at most 20 times as many indexes. Samples count,
        and those of one row are never split. Memory is bounded, and no query stays open between ranges.

        Raises NotFoundError if there is no such evaluation.
        """
        left = -1 if limit is None else limit
        start: int | None = None
        last = held = 0
        for index, samples in self._pending_indexes(evaluation_id, first):
            if left == 0:
                return
            if start is not None and (held + samples > rows_per_range or index - start >= rows_per_range * _WIDEST):
                yield RowRange(start, last)
                left -= 1
                start = None
            if start is None:
                start, held = index, 0
            last = index
            held += samples
        if start is not None and left != 0:
            yield RowRange(start, last)

    def retry_failed(
        self, evaluation_id: int, *, classes: Collection[ErrorClass] | None = None, index: int | None = None
    ) -> int:
        """Make failed rows pending again. Their errors stay visible until a new result is stored.

        classes: only rows that failed with an error of these classes.
        index: only the samples of this row.

        Returns the number of rows.
        """
        return self._retry(evaluation_id, RowStatus.FAILED, _failed(evaluation_id, classes, index))

    def retry_skipped(self, evaluation_id: int) -> int:
        """Make skipped rows pending again, as `retry_failed` does for failed ones. Returns the number of rows."""
        return self._retry(evaluation_id, RowStatus.SKIPPED, _ended_as(RowStatus.SKIPPED, evaluation_id))

    def _retry(self, evaluation_id: int, status: RowStatus, conditions: list[ColumnElement[bool]]) -> int:
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            forget_retried(connection, evaluation_id, conditions)
            count = connection.execute(update(RESULT).where(*conditions).values(retry=true())).rowcount
            add_to_counters(connection, evaluation_id, None, Counter({status.value: -count}))
        return count

    def count_failed(
        self, evaluation_id: int, *, classes: Collection[ErrorClass] | None = None, index: int | None = None
    ) -> int:
        """The number of rows that `retry_failed` would make pending."""
        query = select(func.count()).select_from(RESULT).where(*_failed(evaluation_id, classes, index))
        with self._database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def count_pending(self, evaluation_id: int, ranges: Iterable[RowRange]) -> int:
        """The number of pending rows in ranges, which may overlap; samples count.

        Raises NotFoundError if there is no such evaluation.
        """
        count = 0
        with self._database.read() as connection:
            for each in _merged(ranges):
                within = {"evaluation": evaluation_id, "first": each.first, "last": each.last}
                line = _COUNT_PENDING.run(connection, **within)
                if not line:
                    raise self._gone(evaluation_id)
                count += int(line[0][0]) - count_waiting(connection, evaluation_id, each.first, each.last)
        return count

    def count_pending_from(self, evaluation_id: int, first: int) -> int:
        """The number of pending rows from index `first` on; samples count. It takes longer the more results they have.

        Raises NotFoundError if there is no such evaluation.
        """
        with self._database.read() as connection:
            count = connection.scalar(_COUNT_PENDING_FROM, {"evaluation": evaluation_id, "first": first})
        if count is None:
            raise self._gone(evaluation_id)
        return max(0, int(count))

    def _pending_indexes(self, evaluation_id: int, first: int) -> Iterator[tuple[int, int]]:
        """The indexes with pending samples, and the number of these."""
        with self._database.read() as connection:
            epochs = self._epochs(connection, evaluation_id)
        while untouched := self._untouched(evaluation_id, first):
            yield from ((index, epochs) for index in untouched)
            first = untouched.stop
        yield from self._pending_among_others(evaluation_id, first, epochs)

    def _untouched(self, evaluation_id: int, first: int) -> range:
        """The indexes of a page of rows from `first` on if none of them has a result, else an empty range.

        At the beginning of an evaluation this is every row, and saves reading them.
        """
        within = {"evaluation": evaluation_id, "first": first, "last": first + _PAGE - 1}
        with self._database.read() as connection:
            count, touched = connection.execute(_UNTOUCHED, within).one()
        return range(first, first) if touched else range(first, first + count)

    def _pending_among_others(self, evaluation_id: int, first: int, epochs: int) -> Iterator[tuple[int, int]]:
        query = _unfinished(epochs, self._database.dialect)
        following = first
        while True:
            with self._database.read() as connection:
                found = connection.execute(query, {"evaluation": evaluation_id, "start": following})
                page = [(line.row_index, line.samples) for line in found]
                waiting = (
                    Counter(index for index, _ in waiting_rows(connection, evaluation_id, page[0][0], page[-1][0]))
                    if page
                    else Counter[int]()
                )
            for index, samples in page:
                if samples > waiting[index]:
                    yield index, samples - waiting[index]
            if len(page) < _PAGE:
                return
            following = page[-1][0] + 1

    def _set_total(
        self,
        connection: Connection,
        evaluation_id: int,
        rows: int,
        *,
        complete: bool,
        fingerprint: str | None,
        notes: Sequence[str] | None = None,
        rows_hash: str | None = None,
    ) -> None:
        noted = {} if notes is None else {"dataset_notes": encode(list(notes))}
        updated = connection.execute(
            update(EVALUATION)
            .where(EVALUATION.c.id == evaluation_id)
            .values(
                row_count=rows,
                dataset_complete=complete,
                dataset_fingerprint=fingerprint,
                rows_hash=rows_hash,
                **noted,
            )
        )
        if updated.rowcount == 0:
            raise self._gone(evaluation_id)

    def _epochs(self, connection: Connection, evaluation_id: int) -> int:
        epochs = connection.scalar(_EPOCHS, {"evaluation": evaluation_id})
        if epochs is None:
            raise self._gone(evaluation_id)
        return int(epochs)

    def _gone(self, evaluation_id: int) -> NotFoundError:
        return NotFoundError(f"there is no evaluation {evaluation_id} in {self._database.location.shown}")


def _ended_as(status: RowStatus, evaluation_id: int) -> list[ColumnElement[bool]]:
    """The conditions for results of a status, other than done, that are not marked for a retry."""
    return [
        RESULT.c.evaluation_id == evaluation_id,
        # The condition is given twice, so that both databases use the partial index of rows that are not done.
        RESULT.c.status != RowStatus.DONE.value,
        RESULT.c.status == status.value,
        RESULT.c.retry == false(),
    ]


def _failed(evaluation_id: int, classes: Collection[ErrorClass] | None, index: int | None) -> list[ColumnElement[bool]]:
    """The conditions for failed results that are not marked for a retry."""
    conditions = _ended_as(RowStatus.FAILED, evaluation_id)
    if classes is not None:
        known = func.coalesce(RESULT.c.error_class, ErrorClass.EVALUATION.value)
        conditions.append(known.in_([each.value for each in classes]))
    if index is not None:
        conditions.append(RESULT.c.row_index == index)
    return conditions


def _finished() -> tuple[ColumnElement[bool], ...]:
    return (
        RESULT.c.evaluation_id == ROW.c.evaluation_id,
        RESULT.c.row_index == ROW.c.row_index,
        RESULT.c.retry == false(),
    )


def _within(table: Table) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.evaluation_id == bindparam("evaluation"),
        table.c.row_index.between(bindparam("first"), bindparam("last")),
    )


@functools.cache
def _unfinished(epochs: int, dialect: str) -> Select[tuple[int, int]]:
    """The query for the first page of pending rows from "start" on, with the number of pending samples of each."""
    start = bindparam("start", type_=ROW.c.row_index.type)
    samples: ColumnElement[int]
    if epochs == 1:
        # Without statistics of a new table, PostgreSQL would scan all results unless the range is given for them too.
        # SQLite looks each row up, and would scan the range if it were given.
        within = () if dialect == "sqlite" else (RESULT.c.row_index >= start,)
        samples, unfinished = literal(1), ~exists().where(*_finished(), *within)
    else:
        count = select(func.count()).select_from(RESULT).where(*_finished()).scalar_subquery()
        samples, unfinished = epochs - count, count < epochs
    return (
        select(ROW.c.row_index, samples.label("samples"))
        .where(ROW.c.evaluation_id == bindparam("evaluation"), ROW.c.row_index >= start, unfinished)
        .order_by(ROW.c.row_index)
        .limit(_PAGE)
    )


# The number of rows, and whether they have gaps or any of them has a result or waits for a batch.
_UNTOUCHED = select(
    func.count(),
    or_(
        func.max(ROW.c.row_index) >= bindparam("first") + func.count(),
        exists().where(*_within(RESULT)),
        exists().where(*_within(WANTED_CALL)),
    ),
).where(*_within(ROW))
# Built once: the submitter runs them once a second, worker processes for every row task.
_EPOCHS = select(EVALUATION.c.epochs).where(EVALUATION.c.id == bindparam("evaluation"))
_SO_FAR = select(func.max(ROW.c.row_index) + 1).where(ROW.c.evaluation_id == EVALUATION.c.id).scalar_subquery()
_DATASET_STATE = select(
    func.coalesce(EVALUATION.c.row_count, _SO_FAR, 0).label("rows"),
    EVALUATION.c.dataset_complete,
    EVALUATION.c.dataset_fingerprint,
    EVALUATION.c.epochs,
).where(EVALUATION.c.id == bindparam("evaluation"))
_FINISHED = select(RESULT.c.row_index, RESULT.c.sample).where(*_within(RESULT), RESULT.c.retry == false())
_COUNT_PENDING = Prepared(
    lambda _: select(
        EVALUATION.c.epochs * select(func.count()).select_from(ROW).where(*_within(ROW)).scalar_subquery()
        - select(func.count()).select_from(RESULT).where(*_within(RESULT), RESULT.c.retry == false()).scalar_subquery()
    ).where(EVALUATION.c.id == bindparam("evaluation"))
)
# The indexes of rows have no gaps, so the rows need not be counted.
_COUNT_PENDING_FROM = select(
    EVALUATION.c.epochs * (func.coalesce(EVALUATION.c.row_count, _SO_FAR, 0) - bindparam("first"))
    - select(func.count())
    .select_from(RESULT)
    .where(
        RESULT.c.evaluation_id == EVALUATION.c.id,
        RESULT.c.row_index >= bindparam("first"),
        RESULT.c.retry == false(),
    )
    .scalar_subquery()
).where(EVALUATION.c.id == bindparam("evaluation"))
_PENDING = Prepared(
    lambda _: (
        select(ROW.c.row_index, ROW.c.key, ROW.c.content, EVALUATION.c.epochs)
        .join(EVALUATION, EVALUATION.c.id == ROW.c.evaluation_id)
        .where(
            *_within(ROW),
            select(func.count()).select_from(RESULT).where(*_finished()).scalar_subquery() < EVALUATION.c.epochs,
        )
        .order_by(ROW.c.row_index)
    )
)


def _merged(ranges: Iterable[RowRange]) -> list[RowRange]:
    """The same rows as ranges that do not overlap, in order."""
    apart: list[RowRange] = []
    for each in sorted(ranges, key=lambda each: (each.first, each.last)):
        if apart and each.first <= apart[-1].last:
            apart[-1] = RowRange(apart[-1].first, max(apart[-1].last, each.last))
        else:
            apart.append(each)
    return apart


def _content(row: Row) -> str:
    if row.encoded is not None:
        return row.encoded
    try:
        return encode_columns(row.values)
    except UnstorableValueError as error:
        raise UnstorableValueError(f"row {row.index}: {error.message}", remedy=error.remedy) from None

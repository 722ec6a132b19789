"""Stores what people say of the results of rows.

`RowLabels` reads; `RowLabelWriter` is all that the web view can write with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Text, and_, delete, func, select, type_coerce, update

from doteval.core.json_codec import unescape_text
from doteval.core.row_labels import LabelJudgement, RowLabel, checked_name, checked_note
from doteval.errors import NotFoundError, StoreReadOnlyError
from doteval.store.bulk_insert import among
from doteval.store.connection_errors import role_of
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.migrations import check_current
from doteval.store.tables import RESULT, ROW, ROW_LABEL
from doteval.store.url import locate

_PAGE = 1_000
_GRANT = "As the owner of the tables, run: GRANT INSERT, UPDATE, DELETE ON row_label TO {role}"
_KEY = ("evaluation_id", "row_index", "sample", "person")


class RowLabels:
    """Reads the labels of rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, evaluation_id: int) -> tuple[int, float]:
        """The number of labels of an evaluation, and the moment of the newest one: another one after every change."""
        newest = func.coalesce(func.max(ROW_LABEL.c.labelled_at), 0.0)
        query = select(func.count(), newest).where(ROW_LABEL.c.evaluation_id == evaluation_id)
        with self._database.read() as connection:
            count, moment = connection.execute(query).one()
        return int(count), float(moment)

    def of_evaluation(self, evaluation_id: int) -> Iterator[tuple[str, int, RowLabel]]:
        """The labels of an evaluation with the key and the sample of their row, in pages; none of earlier results."""
        query = (
            select(*ROW_LABEL.c, ROW.c.key)
            .select_from(
                ROW_LABEL.join(
                    RESULT,
                    and_(*(ROW_LABEL.c[name] == RESULT.c[name] for name in (*_KEY[:3], "execution"))),
                ).join(ROW, and_(*(ROW_LABEL.c[name] == ROW.c[name] for name in _KEY[:2])))
            )
            .where(ROW_LABEL.c.evaluation_id == evaluation_id)
            .order_by(ROW_LABEL.c.row_index, ROW_LABEL.c.sample, _by_code_point(self._database))
        )
        place = 0
        while True:
            with self._database.read() as connection:
                lines = connection.execute(query.limit(_PAGE).offset(place)).all()
            for line in lines:
                yield line.key, line.sample, _label(line, line.execution)
            if len(lines) < _PAGE:
                return
            place += len(lines)


class RowLabelWriter:
    """Stores labels, and nothing else, through a connection of its own that may write.

    On PostgreSQL its role has to have the rights to insert into, update and delete from the table ``row_label``.
    """

    def __init__(self, url: str | None) -> None:
        """Open the store at a URL.

        Raises StoreReadOnlyError or StoreError: labels cannot be written there.
        Raises StoreVersionError: it has to be upgraded first.
        """
        location = locate(url)
        self._database = Database(location)
        try:
            check_current(self._database)
            self._check()
        except StoreReadOnlyError as error:
            self._database.close()
            remedy = error.remedy if location.path is not None else _GRANT.format(role=role_of(location))
            raise StoreReadOnlyError(f"labels cannot be stored in {location.shown}", remedy=remedy) from error
        except BaseException:
            self._database.close()
            raise

    def put(
        self, evaluation_id: int, index: int, sample: int, *, person: str, judgement: LabelJudgement, note: str | None
    ) -> None:
        """Store what a person says of the result of a row, in place of what the person has said of it before.

        Raises NotFoundError: the row has no result.
        Raises UsageError: the name or the note cannot be used.
        """
        name, said = checked_name(person), checked_note(note)
        key = dict(zip(_KEY, (evaluation_id, index, sample, name), strict=True))
        with self._database.write() as connection:
            # No deletion of the evaluation may lie between the look at the result and the label.
            self._database.hold(connection, [evaluation_id], alone=False)
            of_row = (RESULT.c[column] == key[column] for column in _KEY[:3])
            execution = connection.scalar(select(RESULT.c.execution).where(*of_row))
            if execution is None:
                raise NotFoundError(f"row {index:,} has no result yet", remedy="Label it when it has one.")
            values = {
                "execution": execution,
                "judgement": judgement.value,
                "note": said,
                "labelled_at": database_time(),
            }
            statement = insert_into(self._database.dialect, ROW_LABEL).values(**key, **values)
            connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=values))

    def remove(self, evaluation_id: int, index: int, sample: int, *, person: str) -> None:
        """Remove what a person has said of a row. Raises UsageError: the name cannot be used."""
        key = dict(zip(_KEY, (evaluation_id, index, sample, checked_name(person)), strict=True))
        with self._database.write() as connection:
            connection.execute(delete(ROW_LABEL).where(*(ROW_LABEL.c[name] == value for name, value in key.items())))

    def close(self) -> None:
        """Close the connections."""
        self._database.close()

    def _check(self) -> None:
        """Raise the error that writing would raise. Nothing is changed."""
        nothing = ROW_LABEL.c.evaluation_id == -1
        with self._database.write() as connection:
            connection.execute(update(ROW_LABEL).where(nothing).values(judgement=ROW_LABEL.c.judgement))
            connection.execute(delete(ROW_LABEL).where(nothing))
            connection.execute(ROW_LABEL.insert().from_select(list(ROW_LABEL.c), select(ROW_LABEL).where(nothing)))


def labels_of_results(
    connection: Connection, evaluation_id: int, results: Sequence[Any]
) -> dict[tuple[int, int], tuple[RowLabel, ...]]:
    """The labels of some results by the index and the sample of their row, in the order of the names of people.

    results: lines with the columns row_index, sample and execution.
    """
    labels: dict[tuple[int, int], list[RowLabel]] = defaultdict(list)
    if results:
        executions = {(line.row_index, line.sample): line.execution for line in results}
        query = select(ROW_LABEL).where(
            ROW_LABEL.c.evaluation_id == evaluation_id,
            among(connection, ROW_LABEL.c.row_index, {line.row_index for line in results}),
        )
        for line in connection.execute(query):
            key = (line.row_index, line.sample)
            if key in executions:
                labels[key].append(_label(line, executions[key]))
    return {key: tuple(sorted(found, key=lambda label: label.person)) for key, found in labels.items()}


def stored_label(line: Sequence[Any], *, of_earlier: bool) -> RowLabel:
    """The label of a table row, as the driver gives it: person, judgement, note and moment."""
    person, judgement, note, moment = line
    return RowLabel(
        unescape_text(person),
        LabelJudgement(judgement),
        None if note is None else unescape_text(note),
        datetime.fromtimestamp(moment, UTC),
        of_earlier,
    )


def _label(line: Any, execution: int) -> RowLabel:
    moment = datetime.fromtimestamp(line.labelled_at, UTC)
    return RowLabel(line.person, LabelJudgement(line.judgement), line.note, moment, line.execution != execution)


def _by_code_point(database: Database) -> Any:
    person = type_coerce(ROW_LABEL.c.person, Text)
    return person if database.is_sqlite else person.collate("C")

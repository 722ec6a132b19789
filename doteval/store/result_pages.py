"""Reads columns of the results of an evaluation, page by page, with their scores and their usage.

Exports and queries read millions of results. So only the columns that are asked for are read, and lines are taken as
the driver gives them: SQLAlchemy's rows, and its restoring of each text, took a third of the time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    cast,
    select,
    tuple_,
    type_coerce,
)

from doteval.core.filters import Filter
from doteval.core.json_codec import unescape_text
from doteval.store.bulk_insert import among
from doteval.store.engine import Database
from doteval.store.filter_sql import FilterCompiler
from doteval.store.index_windows import index_windows
from doteval.store.statements import driver_lines
from doteval.store.tables import RESULT, RESULT_AND_ROW, ROW, ROW_LABEL, SCORE, USAGE, WORKER

# A page has at most so many rows, and by the size of the rows before about so many characters.
_PAGE_ROWS = 4_000
_PAGE_CHARACTERS = 16_000_000
_FIRST_PAGE_ROWS = 100
# Characters of a cell that is no text, for the size of a page.
_CELL = 8

Placed = tuple[int, tuple[Any, ...]]


def _stored(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column with its stored text, which is restored later."""
    return type_coerce(column, Text)


_COLUMNS: dict[str, ColumnElement[Any]] = {
    "key": _stored(ROW.c.key),
    "content": ROW.c.content,
    "status": RESULT.c.status,
    "prompt": RESULT.c.prompt,
    "response": RESULT.c.model_response,
    "metadata": RESULT.c.extra,
    "error": _stored(RESULT.c.error_message),
    "error_type": _stored(RESULT.c.error_type),
    "error_class": RESULT.c.error_class,
    "started_at": RESULT.c.started_at,
    "seconds": RESULT.c.seconds,
    "worker": _stored(WORKER.c.hostname) + ":" + cast(WORKER.c.pid, Text),
}
_OF_ROW = frozenset(("key", "content"))
_ESCAPED = frozenset(("key", "error", "error_type", "worker"))
_LONG_TEXTS = frozenset(("key", "content", "prompt", "response", "metadata", "error"))


@dataclass(frozen=True, slots=True)
class ResultPage:
    """Some results of an evaluation, in the order of their rows and samples.

    columns: by name, of equal length: `index`, `sample` and `execution`, and those that were asked for. Prompts,
        responses, metadata and contents are JSON.
    scores: of these results: its place in the columns, and the columns that were asked for, as they are stored.
    usage: the same for the usage by model, without that of replaced results.
    labels: the same for labels, with the execution in front, also those of replaced results.
    """

    columns: dict[str, Sequence[Any]]
    scores: list[Placed]
    usage: list[Placed]
    labels: list[Placed]

    def __len__(self) -> int:
        return len(self.columns["index"])


def result_pages(
    database: Database,
    evaluation_id: int,
    wanted: Collection[str],
    where: Filter | None = None,
    *,
    scores: Sequence[ColumnElement[Any]] = (),
    usage: Sequence[ColumnElement[Any]] = (),
    labels: Sequence[ColumnElement[Any]] = (),
    within: tuple[int, int | None] = (0, None),
) -> Iterator[ResultPage]:
    """Yield the results of an evaluation, all or those that a filter matches, in pages of bounded size.

    A page is read as it is asked for; no transaction stays open between them.

    wanted: names of `ResultPage.columns`.
    scores, usage, labels: columns of these tables, for the attributes of `ResultPage` with these names.
    within: only rows with these indexes, the second not included.
    """
    names = [name for name in _COLUMNS if name in wanted]
    rows = _FIRST_PAGE_ROWS
    for first, end in index_windows(database, evaluation_id, within):
        query = _query(database.dialect, evaluation_id, names, where, first, end)
        after: tuple[int, int] | None = (first - 1, 2**31 - 1)
        while after is not None:
            with database.read() as connection:
                place = {"after_index": after[0], "after_sample": after[1], "rows": rows}
                page = _page(
                    connection, evaluation_id, names, driver_lines(connection, query, place), scores, usage, labels
                )
            if page is None:
                break
            after = None if len(page) < rows else (page.columns["index"][-1], page.columns["sample"][-1])
            rows = max(1, min(_PAGE_ROWS, _PAGE_CHARACTERS // (1 + _characters(page) // len(page))))
            yield page


def _page(
    connection: Connection,
    evaluation_id: int,
    names: Sequence[str],
    lines: Sequence[tuple[Any, ...]],
    scores: Sequence[ColumnElement[Any]],
    usage: Sequence[ColumnElement[Any]],
    labels: Sequence[ColumnElement[Any]],
) -> ResultPage | None:
    if not lines:
        return None
    read = zip(("index", "sample", "execution", *names), zip(*lines, strict=True), strict=True)
    columns: dict[str, Sequence[Any]] = dict(read)
    for name in _ESCAPED.intersection(names):
        columns[name] = [None if text is None else unescape_text(text) for text in columns[name]]
    used: list[Placed] = []
    placed = _Placer(connection, evaluation_id, columns["index"], columns["sample"]).placed
    if usage:
        executions = columns["execution"]
        found = placed(USAGE, (USAGE.c.execution, *usage), (USAGE.c.execution, USAGE.c.position))
        used = [(place, line[1:]) for place, line in found if line[0] == executions[place]]
    said = placed(ROW_LABEL, (ROW_LABEL.c.execution, *labels), (ROW_LABEL.c.person,)) if labels else []
    return ResultPage(columns, placed(SCORE, scores, (SCORE.c.position,)) if scores else [], used, said)


class _Placer:
    """Reads what other tables have of the results of a page, with the place of each result."""

    def __init__(
        self, connection: Connection, evaluation_id: int, indexes: Sequence[int], samples: Sequence[int]
    ) -> None:
        self._connection = connection
        self._evaluation_id = evaluation_id
        self._indexes = indexes
        self._places = {key: place for place, key in enumerate(zip(indexes, samples, strict=True))}

    def placed(self, table: Table, columns: Sequence[ColumnElement[Any]], order: Sequence[Any]) -> list[Placed]:
        first, last = self._indexes[0], self._indexes[-1]
        if last - first < 2 * len(self._indexes):
            # A range is found faster than each of its numbers.
            of_page = and_(table.c.row_index >= first, table.c.row_index <= last)
        else:
            of_page = among(self._connection, table.c.row_index, set(self._indexes))
        query = (
            select(table.c.row_index, table.c.sample, *columns)
            .where(table.c.evaluation_id == self._evaluation_id, of_page)
            .order_by(table.c.row_index, table.c.sample, *order)
        )
        place_of = self._places.get
        lines = driver_lines(self._connection, query)
        return [(place, line[2:]) for line in lines if (place := place_of(line[:2])) is not None]


def _query(
    dialect: str, evaluation_id: int, names: Sequence[str], where: Filter | None, first: int, end: int
) -> Select[Any]:
    tables: Any = RESULT
    if where is not None or not _OF_ROW.isdisjoint(names):
        tables = RESULT_AND_ROW
    if "worker" in names:
        tables = tables.outerjoin(WORKER, WORKER.c.id == RESULT.c.worker_id)
    query = (
        select(RESULT.c.row_index, RESULT.c.sample, RESULT.c.execution, *(_COLUMNS[name] for name in names))
        .select_from(tables)
        .where(
            RESULT.c.evaluation_id == evaluation_id,
            tuple_(RESULT.c.row_index, RESULT.c.sample) > tuple_(bindparam("after_index"), bindparam("after_sample")),
            RESULT.c.row_index < end,
        )
        .order_by(RESULT.c.row_index, RESULT.c.sample)
        .limit(bindparam("rows"))
    )
    if where is not None:
        query = query.where(FilterCompiler(dialect, evaluation_id, first=first, end=end).condition(where))
    return query


def _characters(page: ResultPage) -> int:
    return sum(
        sum(map(len, filter(None, values))) if name in _LONG_TEXTS else _CELL * len(values)
        for name, values in page.columns.items()
    )

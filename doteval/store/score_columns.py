"""Reads all scores of an evaluation as columns of values.

Reading a million table rows one by one takes seconds in Python. So the database aggregates the values of a page of rows
into one JSON text, if the page is uniform: the first scores of its rows have one name and one set of metrics, and so
have the second scores, and so on. Other pages are read row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    cast,
    exists,
    false,
    func,
    or_,
    select,
    type_coerce,
)

from doteval.analysis.summary import ScoreColumn, not_finite_places
from doteval.core.json_codec import decode, unescape_text
from doteval.core.results import RowStatus
from doteval.store.tables import EVALUATION, RESULT, SCORE

# Results in a page: few enough for memory, and enough to make the query's overhead small.
_PAGE = 5000


@dataclass(slots=True)
class _Column:
    metrics: dict[str, None] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    not_finite_rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class ScorePart:
    """Scores with one name and one set of metrics, in the order of their rows.

    name, metrics: as they are stored.
    rows: empty if they are not needed: aggregating them would take as long as the values.
    """

    name: str
    metrics: str
    values: list[Any]
    rows: list[int]


def read_score_columns(connection: Connection, evaluation_id: int, *, aggregate: bool = True) -> list[ScoreColumn]:
    """The scores of done rows by name, in the order in which the names first appear.

    aggregate: whether the database may aggregate pages. A page that exceeds a gigabyte must be read row by row.
    """
    of = {"evaluation": evaluation_id}
    # The row of each value costs memory; only reducers of several samples need it.
    with_rows = (connection.scalar(_EPOCHS, of) or 1) > 1
    columns: dict[str, _Column] = {}
    for part in score_parts(connection, evaluation_id, with_rows=with_rows, aggregate=aggregate):
        column = columns.setdefault(part.name, _Column())
        column.metrics[part.metrics] = None
        column.values += part.values
        if with_rows:
            column.rows += part.rows
        elif part.rows:
            column.not_finite_rows += [part.rows[place] for place in not_finite_places(part.values)]
    failed_rows = tuple(connection.scalars(_FAILED_ROWS, of)) if with_rows else ()
    return [
        ScoreColumn(
            unescape_text(name),
            tuple(dict.fromkeys(metric for text in column.metrics for metric in decode(text))),
            column.values,
            column.rows if with_rows else None,
            failed_rows,
            tuple(column.not_finite_rows),
        )
        for name, column in columns.items()
    ]


def score_parts(
    connection: Connection, evaluation_id: int, *, with_rows: bool, aggregate: bool = True
) -> Iterator[ScorePart]:
    """Yield all scores of done rows, page by page; the values of one score are in the order of their rows.

    aggregate: whether the database may aggregate pages. A page that exceeds a gigabyte must be read row by row.
    """
    of = {"evaluation": evaluation_id}
    epochs = connection.scalar(_EPOCHS, of) or 1
    # If all rows are done, checking each of them would double the time.
    only_done = bool(connection.scalar(_ANY_UNDONE, of))
    last = connection.scalar(_LAST, of)
    rows_at_once = max(1, _PAGE // epochs)
    for first in range(0, 0 if last is None else last + 1, rows_at_once):
        page = {**of, "first": first, "end": first + rows_at_once}
        parts = aggregated_parts(connection, page, only_done, with_rows) if aggregate else None
        if parts is None or any(not part.rows and not_finite_places(part.values) for part in parts):
            # Notes on scores that are NaN name their rows.
            parts = _parts_by_row(connection, page, only_done)
        yield from parts


def aggregated_parts(
    connection: Connection, page: Mapping[str, int], only_done: bool, with_rows: bool
) -> list[ScorePart] | None:
    """The scores of a page by position, None if the page is not uniform.

    page: the id of the `evaluation`, the `first` index and the `end`, which is not included.
    only_done: whether scores of results that are not done have to be left out.
    """
    parts: list[ScorePart] = []
    for position in count():
        at = {**page, "position": position}
        first = connection.execute(_first(only_done), at).one_or_none()
        if first is None:
            break
        line = connection.execute(_aggregated(only_done, with_rows), {**at, **first._mapping}).one()
        if line.others:
            return None
        rows = decode(f"[{line.rows}]") if with_rows else []
        parts.append(ScorePart(first.name, first.metrics, decode(f"[{line.values}]"), rows))
    # If one name is at two positions, reading row by row keeps its values in the order of the rows.
    return parts if len({part.name for part in parts}) == len(parts) else None


def _parts_by_row(connection: Connection, page: Mapping[str, int], only_done: bool) -> list[ScorePart]:
    lines = connection.execute(_by_row(only_done), page)
    return [ScorePart(name, metrics, [decode(value)], [index]) for name, metrics, value, index in lines]


@functools.cache
def _first(only_done: bool) -> Select[Any]:
    """The query for the name and the metrics of the first score at a position."""
    at_position = SCORE.c.position == bindparam("position")
    return (
        select(_NAME, SCORE.c.metrics)
        .where(*_of_page(only_done), at_position)
        .order_by(SCORE.c.row_index, SCORE.c.sample)
        .limit(1)
    )


@functools.cache
def _aggregated(only_done: bool, with_rows: bool) -> Select[Any]:
    """The query for all values at a position in one text, and the number of scores with other name or metrics."""
    lines = (
        select(_NAME, SCORE.c.metrics, SCORE.c.value, SCORE.c.row_index)
        .where(*_of_page(only_done), SCORE.c.position == bindparam("position"))
        .order_by(SCORE.c.row_index, SCORE.c.sample)
        .subquery()
    )
    others = or_(lines.c.name != bindparam("name"), lines.c.metrics != bindparam("metrics"))
    values = func.aggregate_strings(lines.c.value, ",").label("values")
    columns: list[Any] = [func.count().filter(others).label("others"), values]
    if with_rows:
        columns.append(func.aggregate_strings(cast(lines.c.row_index, Text), ",").label("rows"))
    return select(*columns)


@functools.cache
def _by_row(only_done: bool) -> Select[Any]:
    return (
        select(_NAME, SCORE.c.metrics, SCORE.c.value, SCORE.c.row_index)
        .where(*_of_page(only_done))
        .order_by(SCORE.c.row_index, SCORE.c.sample, SCORE.c.position)
    )


def _of_page(only_done: bool) -> list[ColumnElement[bool]]:
    page = [
        SCORE.c.evaluation_id == bindparam("evaluation"),
        SCORE.c.row_index >= bindparam("first"),
        SCORE.c.row_index < bindparam("end"),
    ]
    of_undone = _UNDONE.where(RESULT.c.row_index == SCORE.c.row_index, RESULT.c.sample == SCORE.c.sample)
    return [*page, ~of_undone] if only_done else page


# The stored form. Restoring the name in each of a million table rows took up to half of the time.
_NAME = type_coerce(SCORE.c.name, Text).label("name")
_EPOCHS = select(EVALUATION.c.epochs).where(EVALUATION.c.id == bindparam("evaluation"))
_LAST = select(func.max(SCORE.c.row_index)).where(SCORE.c.evaluation_id == bindparam("evaluation"))
_UNDONE = exists().where(RESULT.c.evaluation_id == bindparam("evaluation"), RESULT.c.status != RowStatus.DONE.value)
_ANY_UNDONE = select(_UNDONE)
_FAILED_ROWS = (
    select(RESULT.c.row_index)
    .where(
        RESULT.c.evaluation_id == bindparam("evaluation"),
        RESULT.c.status != RowStatus.DONE.value,
        RESULT.c.status == RowStatus.FAILED.value,
        RESULT.c.retry == false(),
    )
    .order_by(RESULT.c.row_index, RESULT.c.sample)
)

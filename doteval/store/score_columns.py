"""All values of the scores of an evaluation, in columns.

For a million lines one by one Python takes seconds. So the database puts the values of a page of rows together, as one
text in JSON, wherever its lines are alike: where the first score of each row has one name and one set of metrics, and
the second, and so on. Other pages are read line by line.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
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

from doteval.analysis.summary import ScoreColumn
from doteval.core.json_codec import decode, unescape_text
from doteval.core.results import RowStatus
from doteval.store.tables import EVALUATION, RESULT, SCORE

# Results in a page: enough to be fast, little enough to keep in memory.
_PAGE = 5000


@dataclass(slots=True)
class _Column:
    metrics: dict[str, None] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Part:
    """Scores of one name and one set of metrics, in the order of their rows; no `rows` if nobody asks for them."""

    name: str
    metrics: str
    values: list[Any]
    rows: list[int]


def read_score_columns(connection: Connection, evaluation_id: int, *, together: bool = True) -> list[ScoreColumn]:
    """The scores of the rows that are done, by name, in the order in which they first appear.

    Without `together` all pages are read line by line: what a database puts together has to be less than a gigabyte.
    """
    of = {"evaluation": evaluation_id}
    epochs = connection.scalar(_EPOCHS, of) or 1
    # Which rows the values belong to matters where rows have several samples, and costs memory.
    with_rows = epochs > 1
    # Where all rows are done, to look it up for each would take as long as all else.
    only_done = bool(connection.scalar(_ANY_UNDONE, of))
    last = connection.scalar(_LAST, of)
    rows_at_once = max(1, _PAGE // epochs)
    columns: dict[str, _Column] = {}
    for first in range(0, 0 if last is None else last + 1, rows_at_once):
        page = {**of, "first": first, "end": first + rows_at_once}
        parts = _parts_together(connection, page, only_done, with_rows) if together else None
        for part in _parts_by_line(connection, page, only_done) if parts is None else parts:
            column = columns.setdefault(part.name, _Column())
            column.metrics[part.metrics] = None
            column.values += part.values
            if with_rows:
                column.rows += part.rows
    failed_rows = tuple(connection.scalars(_FAILED_ROWS, of)) if with_rows else ()
    return [
        ScoreColumn(
            unescape_text(name),
            tuple(dict.fromkeys(metric for text in column.metrics for metric in decode(text))),
            column.values,
            column.rows if with_rows else None,
            failed_rows,
        )
        for name, column in columns.items()
    ]


def _parts_together(
    connection: Connection, page: Mapping[str, int], only_done: bool, with_rows: bool
) -> list[_Part] | None:
    """The scores of a page of rows by their position; None if there is one whose lines are not alike."""
    parts: list[_Part] = []
    for position in count():
        at = {**page, "position": position}
        first = connection.execute(_first(only_done), at).one_or_none()
        if first is None:
            break
        line = connection.execute(_together(only_done, with_rows), {**at, **first._mapping}).one()
        if line.others:
            return None
        rows = decode(f"[{line.rows}]") if with_rows else []
        parts.append(_Part(first.name, first.metrics, decode(f"[{line.values}]"), rows))
    # One name at two positions: line by line its values come in the order of the rows.
    return parts if len({part.name for part in parts}) == len(parts) else None


def _parts_by_line(connection: Connection, page: Mapping[str, int], only_done: bool) -> Sequence[_Part]:
    lines = connection.execute(_by_line(only_done), page)
    return [_Part(name, metrics, [decode(value)], [index]) for name, metrics, value, index in lines]


@functools.cache
def _first(only_done: bool) -> Select[Any]:
    """The name and the metrics of the first score at a position."""
    at_position = SCORE.c.position == bindparam("position")
    return (
        select(_NAME, SCORE.c.metrics)
        .where(*_of_page(only_done), at_position)
        .order_by(SCORE.c.row_index, SCORE.c.sample)
        .limit(1)
    )


@functools.cache
def _together(only_done: bool, with_rows: bool) -> Select[Any]:
    """How many scores at a position have another name or other metrics, and all their values in one text."""
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
def _by_line(only_done: bool) -> Select[Any]:
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


# As it is stored: made readable for each of a million lines it took up to half of the time.
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

"""Reads results by group, with their scores, window by window.

Reading a million scores one by one takes seconds in Python. So the database joins the values of a window to one text
for each place in a result, if all results that are done have the same scores; other windows are read line by line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Text, select, type_coerce

from doteval.analysis.groups import AlignedScore, Group, GroupTotals
from doteval.core.filters import Filter, FilterField
from doteval.core.json_codec import decode, unescape_text
from doteval.core.results import RowStatus
from doteval.errors import UsageError
from doteval.store.driver_errors import RefusedError
from doteval.store.engine import Database
from doteval.store.filter_sql import FilterCompiler
from doteval.store.index_windows import index_windows
from doteval.store.score_columns import aggregated_parts
from doteval.store.statements import driver_lines
from doteval.store.tables import RESULT, RESULT_AND_ROW, SCORE

# A group takes about 1 KB of memory. Nobody reads the means of so many.
MOST_GROUPS = 100_000


def add_groups(
    database: Database, totals: GroupTotals, evaluation_id: int, by: FilterField, where: Filter | None = None
) -> None:
    """Add the results that a filter matches to `totals`, by the value of a field.

    Raises UsageError: the field has more than `MOST_GROUPS` values.
    """
    known = _JsonValues()
    for first, end in index_windows(database, evaluation_id):
        compiler = FilterCompiler(database.dialect, evaluation_id, first=first, end=end)
        json = compiler.json_of_row(by)
        field = compiler.field(by)
        values = (field.number, field.text) if json is None else (json,)
        query = (
            select(RESULT.c.row_index, RESULT.c.sample, RESULT.c.status, *values)
            .select_from(RESULT_AND_ROW)
            .where(RESULT.c.evaluation_id == evaluation_id, RESULT.c.row_index >= first, RESULT.c.row_index < end)
            .order_by(RESULT.c.row_index, RESULT.c.sample)
        )
        if where is not None:
            query = query.where(compiler.condition(where))
        with database.read() as connection:
            lines = driver_lines(connection, query)
        if not lines:
            continue
        indexes, samples, statuses, *given = zip(*lines, strict=True)
        groups = list(map(_number_or_text, *given)) if json is None else known.of(given[0])
        aligned = _aligned(database, evaluation_id, statuses, first, end) if where is None else None
        if aligned is None:
            with database.read() as connection:
                scores = _score_lines(connection, evaluation_id, first, end)
                totals.add(zip(indexes, samples, statuses, groups, strict=True), scores)
        else:
            totals.add_aligned(indexes, statuses, groups, aligned)
        if len(totals) > MOST_GROUPS:
            raise UsageError(
                f"{by} has more than {MOST_GROUPS:,} values", remedy="Group by a field that has fewer of them."
            )


def _number_or_text(number: float | None, text: str | None) -> Group:
    return text if number is None else float(number)


class _JsonValues:
    """The groups of results by the JSON of a value: a number, true and false being 1 and 0, a text, or None."""

    def __init__(self) -> None:
        self._known: dict[str | None, Group] = {None: None}

    def of(self, texts: Sequence[str | None]) -> list[Group]:
        for text in set(texts) - self._known.keys():
            value = decode(text or "null")
            number = isinstance(value, bool | int | float)
            self._known[text] = float(value) if number else value if isinstance(value, str) else None
        return list(map(self._known.__getitem__, texts))


def _aligned(
    database: Database, evaluation_id: int, statuses: Sequence[str], first: int, end: int
) -> list[AlignedScore] | None:
    """The scores of a window of which each result that is done has one; None if there are others."""
    import numpy

    done = statuses.count(RowStatus.DONE.value)
    page = {"evaluation": evaluation_id, "first": first, "end": end}
    try:
        with database.read() as connection:
            parts = aggregated_parts(connection, page, done < len(statuses), False)
    except RefusedError:
        # The values of the window exceed the longest text that a database can make.
        return None
    found: list[AlignedScore] = []
    for part in parts or ():
        kinds = set(map(type, part.values))
        if len(part.values) != done or not kinds <= {bool, int, float}:
            return None
        numbers = numpy.fromiter(part.values, dtype=numpy.float64, count=done)
        if not numpy.isfinite(numbers).all():
            return None
        found.append(AlignedScore(unescape_text(part.name), numbers, kinds == {bool}))
    return found if parts is not None else None


def _score_lines(connection: Connection, evaluation_id: int, first: int, end: int) -> Any:
    query = select(
        SCORE.c.row_index,
        SCORE.c.sample,
        type_coerce(SCORE.c.name, Text),
        SCORE.c.number,
        SCORE.c.value.in_(["true", "false"]),
    ).where(
        SCORE.c.evaluation_id == evaluation_id,
        SCORE.c.row_index >= first,
        SCORE.c.row_index < end,
        SCORE.c.number.is_not(None),
    )
    return (
        (index, sample, unescape_text(name), number, bool(is_bool))
        for index, sample, name, number, is_bool in driver_lines(connection, query)
    )

"""Finds the rows of one page: those before or behind a row that a filter and a text match.

Nothing is indexed for it. A page without conditions is read by key. With conditions, results are looked at in windows,
from the row on, until the page is full or the time is over. The page then says how far it has looked, so that the next
one goes on from there: a look at a million rows that match nothing takes many pages and never a long wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Select, Text, func, literal, select, tuple_, type_coerce

from doteval.core import clocks
from doteval.core.filters import FieldKind, Filter, FilterField, fields_of
from doteval.core.json_codec import escape_text
from doteval.store.engine import Database
from doteval.store.filter_sql import FilterCompiler
from doteval.store.selections import SortOrder, sort_columns
from doteval.store.tables import RESULT, RESULT_AND_ROW, SCORE

RowKey = tuple[int, int]

# Indexes in the first window and in the largest. How many one window has follows from the time of the one before.
_FIRST_WINDOW = 500
_LARGEST_WINDOW = 100_000
_GROWTH = 4
# Part of the time that is left which a window may take, by the pace of the one before.
_SHARE = 0.5
# For the pace of windows that took no time.
_LEAST_SECONDS = 1e-4
# Behind every sample of a row.
_LAST_SAMPLE = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RowPage:
    """The rows of one page, by index and sample.

    keys: in order, whatever the direction.
    reached: where the look ended, for the next page in its direction; None if it has reached the end.
    looked_at: rows between the end of the evaluation where a look begins and `reached`.
    rows: rows from the first to the last that has a result.
    """

    keys: tuple[RowKey, ...]
    reached: RowKey | None
    looked_at: int
    rows: int


@dataclass(frozen=True, slots=True)
class RowsWanted:
    """Which rows of an evaluation a page shows, all of them without a filter and a text.

    text: what the prompt, the response or a value of the row holds; see `FilterCompiler.holds`.
    columns: of the rows, for `text`.
    """

    evaluation_id: int
    where: Filter | None = None
    text: str | None = None
    columns: Sequence[str] = ()

    @property
    def everything(self) -> bool:
        return self.where is None and not self.text

    @property
    def reads_rows(self) -> bool:
        """Whether the content of rows is needed to find them."""
        return bool(self.text) or any(map(_is_of_row, () if self.where is None else fields_of(self.where)))


class RowPages:
    """Finds pages of rows in the order of their indexes and samples."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, wanted: RowsWanted, key: RowKey | None, size: int, seconds: float) -> RowPage:
        """The first rows behind one, or from the beginning on for None; at most `size`.

        seconds: about how long to look. A window that was begun is looked at to its end.
        """
        return self._page(wanted, key, size, seconds, backwards=False)

    def before(self, wanted: RowsWanted, key: RowKey | None, size: int, seconds: float) -> RowPage:
        """The last rows before one, or before the end for None, in order; see `after`."""
        return self._page(wanted, key, size, seconds, backwards=True)

    def sorted_part(self, wanted: RowsWanted, sort: SortOrder, limit: int, *, skip: int = 0) -> tuple[RowKey, ...]:
        """The rows by the value of a field, at most `limit`. All results are read for it.

        skip: how many rows come before them.
        """
        if wanted.everything and sort.field.kind is FieldKind.SCORE:
            found = self._by_score(wanted.evaluation_id, sort, limit, skip)
            if len(found) == limit:
                return found
        dialect = self._database.dialect
        compiler = FilterCompiler(dialect, wanted.evaluation_id)
        query = _matching(wanted, compiler, with_rows=_is_of_row(sort.field)).order_by(
            *sort_columns(compiler.field(sort.field), sort.descending, dialect)
        )
        return self._keys(query.order_by(RESULT.c.row_index, RESULT.c.sample).limit(limit).offset(skip))

    def among(self, keys: Sequence[RowKey], wanted: RowsWanted, sort: SortOrder | None) -> tuple[RowKey, ...]:
        """Those of a few thousand rows that are wanted: in the order of `sort`, or else in the given one."""
        if wanted.everything and sort is None:
            return tuple(keys)
        dialect = self._database.dialect
        compiler = FilterCompiler(dialect, wanted.evaluation_id)
        query = _matching(wanted, compiler, with_rows=sort is not None and _is_of_row(sort.field))
        query = query.where(RESULT.c.row_index.in_({index for index, _ in keys}))
        if sort is not None:
            query = query.order_by(*sort_columns(compiler.field(sort.field), sort.descending, dialect))
        found = dict.fromkeys(self._keys(query.order_by(RESULT.c.row_index, RESULT.c.sample)))
        given = dict.fromkeys(keys)
        # A dict keeps its order.
        first, second = (given, found) if sort is None else (found, given)
        return tuple(key for key in first if key in second)

    def _by_score(self, evaluation_id: int, sort: SortOrder, limit: int, skip: int) -> tuple[RowKey, ...]:
        """`sorted_part` for the rows whose score is a number. Reading only the scores takes a tenth of the time."""
        query = (
            select(SCORE.c.row_index, SCORE.c.sample)
            .where(
                SCORE.c.evaluation_id == evaluation_id,
                type_coerce(SCORE.c.name, Text) == escape_text(sort.field.name),
                SCORE.c.number.is_not(None),
            )
            .order_by(SCORE.c.number.desc() if sort.descending else SCORE.c.number)
        )
        return self._keys(query.order_by(SCORE.c.row_index, SCORE.c.sample).limit(limit).offset(skip))

    def _keys(self, query: Select[Any]) -> tuple[RowKey, ...]:
        with self._database.read() as connection:
            return tuple((int(index), int(sample)) for index, sample in connection.execute(query))

    def _page(self, wanted: RowsWanted, key: RowKey | None, size: int, seconds: float, *, backwards: bool) -> RowPage:
        low, high = self._bounds(wanted.evaluation_id)
        if low is None or high is None:
            return RowPage((), None, 0, 0)
        deadline = clocks.monotonic() + seconds
        place = _first_index(key, low, high, backwards=backwards)
        window = _LARGEST_WINDOW if wanted.everything else _FIRST_WINDOW
        found: list[RowKey] = []
        reached: RowKey | None = None
        while low <= place <= high:
            began = clocks.monotonic()
            first, end = (
                (max(low, place - window + 1), place + 1) if backwards else (place, min(place + window, high + 1))
            )
            # One more than the page has, to know whether another one follows.
            found += self._look(wanted, first, end, key, size + 1 - len(found), backwards=backwards)
            place = first - 1 if backwards else end
            if len(found) > size:
                found.pop()
                reached = found[-1]
                break
            now = clocks.monotonic()
            if now >= deadline and low <= place <= high:
                reached = (place + 1, 0) if backwards else (place - 1, _LAST_SAMPLE)
                break
            pace = (end - first) / max(now - began, _LEAST_SECONDS)
            affordable = int(pace * (deadline - now) * _SHARE)
            window = max(_FIRST_WINDOW, min(window * _GROWTH, _LARGEST_WINDOW, affordable))
        rows = high - low + 1
        looked_at = rows if reached is None else (high - reached[0] if backwards else reached[0] - low) + 1
        return RowPage(tuple(sorted(found)), reached, min(looked_at, rows), rows)

    def _look(
        self, wanted: RowsWanted, first: int, end: int, key: RowKey | None, limit: int, *, backwards: bool
    ) -> tuple[RowKey, ...]:
        """The matching rows with indexes from `first` to before `end` that lie behind or before `key`."""
        compiler = FilterCompiler(self._database.dialect, wanted.evaluation_id, first=first, end=end)
        query = (
            _matching(wanted, compiler)
            .where(RESULT.c.row_index >= first, RESULT.c.row_index < end)
            .order_by(*(each.desc() if backwards else each for each in (RESULT.c.row_index, RESULT.c.sample)))
            .limit(limit)
        )
        if key is not None and first <= key[0] < end:
            place = tuple_(RESULT.c.row_index, RESULT.c.sample)
            given = tuple_(*(literal(each, BigInteger) for each in key))
            query = query.where(place < given if backwards else place > given)
        return self._keys(query)

    def _bounds(self, evaluation_id: int) -> tuple[int | None, int | None]:
        """The lowest and the highest index of a row with a result, None without any."""
        found: list[int | None] = []
        with self._database.read() as connection:
            for bound in (func.min, func.max):
                # Each alone is one look at the key; both in one query would read all results.
                query = select(bound(RESULT.c.row_index)).where(RESULT.c.evaluation_id == evaluation_id)
                found.append(connection.scalar(query))
        return found[0], found[1]


def _first_index(key: RowKey | None, low: int, high: int, *, backwards: bool) -> int:
    """The first index to look at behind a row, or before it."""
    if key is None:
        return high if backwards else low
    index, sample = key
    if backwards:
        return min(index if sample else index - 1, high)
    return max(index if sample < _LAST_SAMPLE else index + 1, low)


def _is_of_row(field: FilterField) -> bool:
    """Whether the content of rows holds a field."""
    return field.kind is FieldKind.ROW or field.name == "key"


def _matching(wanted: RowsWanted, compiler: FilterCompiler, *, with_rows: bool = False) -> Select[Any]:
    query = (
        select(RESULT.c.row_index, RESULT.c.sample)
        .select_from(RESULT_AND_ROW if with_rows or wanted.reads_rows else RESULT)
        .where(RESULT.c.evaluation_id == wanted.evaluation_id)
    )
    if wanted.where is not None:
        query = query.where(compiler.condition(wanted.where))
    if wanted.text:
        query = query.where(compiler.holds(wanted.columns, wanted.text))
    return query

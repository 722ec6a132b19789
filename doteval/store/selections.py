"""Finds the results that a filter matches, sorts them, and reads the scores of groups.

Rows are looked at in windows of growing size, from the first on. A filter that many rows match is answered from the
first window; one that none matches reads each table once.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, func, select, type_coerce

from doteval.analysis.groups import GroupTotals
from doteval.core.experiments import Evaluation
from doteval.core.filter_grammar import names_in, parse_filter
from doteval.core.filters import FieldKind, FieldNames, Filter, FilterField
from doteval.core.json_codec import escape_text, unescape_text
from doteval.core.results import Record
from doteval.store.engine import Database
from doteval.store.filter_sql import FieldSql, FilterCompiler
from doteval.store.group_reading import add_groups
from doteval.store.index_windows import index_windows
from doteval.store.metadata_names import metadata_names
from doteval.store.results import StoredResults
from doteval.store.tables import RESULT, RESULT_AND_ROW, ROW, SCORE

# Records in memory at once.
_PAGE = 200
# Rows in which the names of scores are looked for.
_NAMED_ROWS = 1_000


@dataclass(frozen=True, slots=True)
class SortOrder:
    """By which field results are sorted; those without a value come last."""

    field: FilterField
    descending: bool = False


class Selections:
    """Reads the results that a filter matches."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._results = StoredResults(database)

    def score_names(self, evaluation_id: int, also: Sequence[str] = ()) -> list[str]:
        """The names of the scores of the first rows, and of those in `also` that any row has."""
        names: dict[str, None] = {}
        of_evaluation = SCORE.c.evaluation_id == evaluation_id
        name = type_coerce(SCORE.c.name, Text)
        with self._database.read() as connection:
            first = connection.scalar(select(func.min(SCORE.c.row_index)).where(of_evaluation))
            if first is None:
                return []
            query = select(name, SCORE.c.position).where(of_evaluation, SCORE.c.row_index < first + _NAMED_ROWS)
            for found, _ in connection.execute(query.distinct().order_by(SCORE.c.position)):
                names[unescape_text(found)] = None
            for other in also:
                rare = select(SCORE.c.row_index).where(of_evaluation, name == escape_text(other)).limit(1)
                if other not in names and connection.scalar(rare) is not None:
                    names[other] = None
        return list(names)

    def metadata_names(self, evaluation_id: int, also: Sequence[str] = ()) -> list[str]:
        """The keys of the metadata of the first results, and of those in `also` that any result has a value for."""
        return metadata_names(self._database, evaluation_id, also)

    def names(self, evaluations: Sequence[Evaluation], texts: Iterable[str | None]) -> FieldNames:
        """The names that filters of these evaluations may have, as far as the texts name them.

        The names of metadata are looked for only if a text names some.
        """
        given = [text for text in texts if text]
        also = {kind: [name for text in given for name in names_in(text, kind)] for kind in FieldKind}
        scores = (name for each in evaluations for name in self.score_names(each.id, also[FieldKind.SCORE]))
        columns = (column for each in evaluations for column in each.spec.columns)
        metadata = None
        if wanted := also[FieldKind.METADATA]:
            found = (name for each in evaluations for name in self.metadata_names(each.id, wanted))
            metadata = list(dict.fromkeys(found))
        return FieldNames(list(dict.fromkeys(scores)), list(dict.fromkeys(columns)), metadata)

    def filter(self, evaluations: Sequence[Evaluation], text: str) -> Filter:
        """The filter that a text describes; the fields are those that any of the evaluations has.

        Raises UsageError: the text is no filter, or names a field that does not exist.
        """
        return parse_filter(text, self.names(evaluations, [text]))

    def records(
        self,
        evaluation_id: int,
        where: Filter | None = None,
        *,
        sort: SortOrder | None = None,
        limit: int | None = None,
    ) -> Iterator[Record]:
        """The results that a filter matches, all of them for None; at most `limit`.

        They come by index and sample, or sorted, in pages. Sorting without a limit needs 16 bytes of memory a result.
        """
        keys = (
            self._in_order(evaluation_id, where, limit)
            if sort is None
            else iter(self._sorted(evaluation_id, where, sort, limit))
        )
        page: list[tuple[int, int]] = []
        for key in keys:
            page.append(key)
            if len(page) == _PAGE:
                yield from self._results.of_keys(evaluation_id, page)
                page = []
        if page:
            yield from self._results.of_keys(evaluation_id, page)

    def count(self, evaluation_id: int, where: Filter | None = None) -> int:
        """The number of results that a filter matches."""
        count = 0
        for first, end in index_windows(self._database, evaluation_id):
            compiler = FilterCompiler(self._database.dialect, evaluation_id, first=first, end=end)
            query = _within(select(func.count()), evaluation_id, first, end, compiler, where)
            with self._database.read() as connection:
                count += int(connection.execute(query).scalar_one())
        return count

    def index_of_key(self, evaluation_id: int, beginning: str, *, whole: bool = False) -> int | None:
        """The index of the first row whose key begins with a text, or is it for `whole`; None if there is none."""
        key = type_coerce(ROW.c.key, Text)
        wanted = escape_text(beginning)
        query = (
            select(ROW.c.row_index)
            .where(ROW.c.evaluation_id == evaluation_id, (key if whole else func.substr(key, 1, len(wanted))) == wanted)
            .order_by(ROW.c.row_index)
            .limit(1)
        )
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else int(found)

    def add_groups(self, totals: GroupTotals, evaluation_id: int, by: FilterField, where: Filter | None = None) -> None:
        """Add the results that a filter matches to `totals`, by the value of a field.

        Raises UsageError: the field has too many values.
        """
        add_groups(self._database, totals, evaluation_id, by, where)

    def _in_order(self, evaluation_id: int, where: Filter | None, limit: int | None) -> Iterator[tuple[int, int]]:
        left = limit
        for first, end in index_windows(self._database, evaluation_id):
            compiler = FilterCompiler(self._database.dialect, evaluation_id, first=first, end=end)
            query = _within(select(RESULT.c.row_index, RESULT.c.sample), evaluation_id, first, end, compiler, where)
            query = query.order_by(RESULT.c.row_index, RESULT.c.sample).limit(left)
            with self._database.read() as connection:
                found = [(int(index), int(sample)) for index, sample in connection.execute(query)]
            yield from found
            left = None if left is None else left - len(found)
            if left == 0:
                return

    def _sorted(
        self, evaluation_id: int, where: Filter | None, sort: SortOrder, limit: int | None
    ) -> Iterator[tuple[int, int]]:
        compiler = FilterCompiler(self._database.dialect, evaluation_id)
        query = _joined(select(RESULT.c.row_index, RESULT.c.sample), evaluation_id, compiler, where)
        query = query.order_by(*sort_columns(compiler.field(sort.field), sort.descending, self._database.dialect))
        query = query.order_by(RESULT.c.row_index, RESULT.c.sample).limit(limit)
        numbers = array("q")
        with self._database.read() as connection:
            for index, sample in connection.execute(query):
                numbers.extend((index, sample))
        return zip(numbers[::2], numbers[1::2], strict=True)


def _joined(query: Select[Any], evaluation_id: int, compiler: FilterCompiler, where: Filter | None) -> Select[Any]:
    found = query.select_from(RESULT_AND_ROW).where(RESULT.c.evaluation_id == evaluation_id)
    return found if where is None else found.where(compiler.condition(where))


def _within(
    query: Select[Any], evaluation_id: int, first: int, end: int, compiler: FilterCompiler, where: Filter | None
) -> Select[Any]:
    return _joined(query, evaluation_id, compiler, where).where(RESULT.c.row_index >= first, RESULT.c.row_index < end)


def sort_columns(field: FieldSql, descending: bool, dialect: str) -> list[ColumnElement[Any]]:
    """How results are sorted by a field: numbers first, then texts by code points, then what has no value."""
    text = field.text if dialect == "sqlite" else field.text.collate("C")
    return [each.desc().nulls_last() if descending else each.asc().nulls_last() for each in (field.number, text)]

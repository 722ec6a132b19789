"""Reads results as a table with one line a result: what exports and data frames are made of.

It reads columns, not `Record`s, which takes a third of the time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Select, bindparam, select, tuple_

from doteval.analysis.export import CellTable, Page, cell
from doteval.core.experiments import Evaluation
from doteval.core.filters import Filter
from doteval.core.json_codec import decode
from doteval.errors import ChangedError, UsageError
from doteval.store.bulk_insert import among
from doteval.store.engine import Database
from doteval.store.filter_sql import FilterCompiler
from doteval.store.index_windows import index_windows
from doteval.store.tables import RESULT, RESULT_AND_ROW, ROW, SCORE, USAGE, WORKER

# A page has at most so many rows, and by the size of the rows before about so many characters.
_PAGE_ROWS = 2_000
_PAGE_CHARACTERS = 16_000_000
_FIRST_PAGE_ROWS = 100

_SUMS = (
    "requests",
    "attempts",
    "cache_hits",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
)
_FIRST = ("experiment", "evaluation", "index", "key", "sample", "status")
_LAST = (
    "prompt",
    "response",
    "metadata",
    "error",
    "error_type",
    "error_class",
    "models",
    *_SUMS,
    "cost",
    "started_at",
    "seconds",
    "worker",
)
_USAGE = frozenset((*_SUMS, "models", "cost"))


class FlatResults:
    """The results of evaluations of one experiment as a table: all, or those that a filter matches.

    Its columns have the names of the fields of filters: what identifies the row, its values as ``row.COLUMN``, its
    scores as ``score.NAME``, and the rest of its result. Usage is the sum over all models. Rows without a result have
    no line.
    """

    def __init__(self, database: Database, evaluations: Sequence[Evaluation], where: Filter | None = None) -> None:
        self._database = database
        self._evaluations = evaluations
        self._where = where

    def columns(self) -> list[str]:
        """The names of all columns, in order."""
        values = dict.fromkeys(name for each in self._evaluations for name in each.spec.columns)
        return [
            *_FIRST,
            *(f"row.{name}" for name in values),
            *(f"score.{name}" for name in self._score_names()),
            *_LAST,
        ]

    def table(self, columns: Sequence[str] | None = None) -> CellTable:
        """The table, whose pages are read as they are asked for; no query stays open between them.

        columns: only these, in this order.

        Raises UsageError if there is no such column.
        """
        known = self.columns()
        for name in columns or ():
            if name not in known:
                raise UsageError(f"there is no column {name!r}", remedy=f"The columns are {', '.join(known)}.")
        wanted = known if columns is None else list(columns)
        return CellTable(wanted, self._pages(wanted, known))

    def _score_names(self) -> list[str]:
        names: dict[str, None] = {}
        with self._database.read() as connection:
            for evaluation in self._evaluations:
                query = select(SCORE.c.name).where(SCORE.c.evaluation_id == evaluation.id).distinct()
                names.update(dict.fromkeys(sorted(connection.scalars(query))))
        return list(names)

    def _pages(self, wanted: Sequence[str], known: Sequence[str]) -> Iterator[Page]:
        for evaluation in self._evaluations:
            reader = _PageReader(self._database, evaluation, wanted, known)
            rows = _FIRST_PAGE_ROWS
            for first, end in index_windows(self._database, evaluation.id):
                lines = _LINES
                if self._where is not None:
                    compiler = FilterCompiler(self._database.dialect, evaluation.id, first=first, end=end)
                    lines = lines.where(compiler.condition(self._where))
                after: tuple[int, int] | None = (first - 1, 2**31 - 1)
                while after is not None:
                    page, after = reader.read(lines, after, end, rows)
                    if after is not None:
                        yield page
                        rows = max(1, min(_PAGE_ROWS, _PAGE_CHARACTERS // reader.characters_per_row))


class _PageReader:
    """Reads the pages of one evaluation."""

    def __init__(self, database: Database, evaluation: Evaluation, wanted: Sequence[str], known: Sequence[str]) -> None:
        self._database = database
        self._evaluation = evaluation
        self._wanted = wanted
        self._known = frozenset(known)
        self.characters_per_row = 1

    def read(
        self, query: Select[Any], after: tuple[int, int], end: int, rows: int
    ) -> tuple[Page, tuple[int, int] | None]:
        """Read the page after a row and sample, before the index `end`.

        Returns it with its last row and sample, None if it has none.
        """
        place = {"after_index": after[0], "after_sample": after[1], "end": end}
        with self._database.read() as connection:
            found = connection.execute(query, {"evaluation": self._evaluation.id, **place, "rows": rows}).all()
            return self._page(connection, found)

    def _page(self, connection: Connection, lines: Sequence[Any]) -> tuple[Page, tuple[int, int] | None]:
        if not lines:
            return {}, None
        indexes, keys, samples, executions, statuses, *rest = zip(*lines, strict=True)
        prompts, responses, extras, types, messages, classes, started, seconds, hosts, pids, contents = rest
        number = len(lines)
        texts = (prompts, responses, extras, messages, contents)
        self.characters_per_row = 1 + sum(len(text) for column in texts for text in column if text) // number
        page: dict[str, Sequence[Any]] = {
            "experiment": [cell(self._evaluation.experiment.name)] * number,
            "evaluation": [cell(self._evaluation.spec.nodeid)] * number,
            "index": indexes,
            "key": [cell(key) for key in keys],
            "sample": samples,
            "status": statuses,
            "prompt": [_stored(text) for text in prompts],
            "response": [_stored(text) for text in responses],
            "metadata": extras,
            "error_type": [cell(text) for text in types],
            "error": [cell(text) for text in messages],
            "error_class": classes,
            "started_at": [datetime.fromtimestamp(moment, UTC) for moment in started],
            "seconds": seconds,
            "worker": [None if pid is None else f"{host}:{pid}" for host, pid in zip(hosts, pids, strict=True)],
        }
        if any(name.startswith("row.") for name in self._wanted):
            page.update(self._values(contents))
        places = {key: place for place, key in enumerate(zip(indexes, samples, strict=True))}
        if any(name.startswith("score.") for name in self._wanted):
            page.update(self._scores(connection, places))
        if not _USAGE.isdisjoint(self._wanted):
            page.update(self._usage(connection, places, executions))
        return page, (indexes[-1], samples[-1])

    def _values(self, contents: Sequence[str]) -> Mapping[str, Sequence[Any]]:
        rows = [decode(text) for text in contents]
        return {f"row.{name}": [cell(row.get(name)) for row in rows] for name in self._evaluation.spec.columns}

    def _scores(self, connection: Connection, places: Mapping[tuple[int, int], int]) -> Mapping[str, Sequence[Any]]:
        columns: dict[str, list[Any]] = defaultdict(lambda: [None] * len(places))
        query = select(SCORE.c.row_index, SCORE.c.sample, SCORE.c.name, SCORE.c.value).where(
            SCORE.c.evaluation_id == self._evaluation.id, _among(connection, SCORE.c.row_index, places)
        )
        for index, sample, name, value in connection.execute(query):
            place = places.get((index, sample))
            if place is not None:
                columns[f"score.{name}"][place] = _stored(value)
        for name in columns:
            if name not in self._known:
                raise ChangedError(
                    f"{self._evaluation.spec.nodeid} got the new score {name.removeprefix('score.')!r} meanwhile",
                    remedy="Read its results again.",
                )
        return columns

    def _usage(
        self, connection: Connection, places: Mapping[tuple[int, int], int], executions: Sequence[int]
    ) -> Mapping[str, Sequence[Any]]:
        models: list[str | None] = [None] * len(places)
        costs: list[float | None] = [None] * len(places)
        sums = [[0] * len(places) for _ in _SUMS]
        query = (
            select(USAGE.c.row_index, USAGE.c.sample, USAGE.c.execution, USAGE.c.model, USAGE.c.cost)
            .add_columns(*(USAGE.c[name] for name in _SUMS))
            .where(USAGE.c.evaluation_id == self._evaluation.id, _among(connection, USAGE.c.row_index, places))
            .order_by(USAGE.c.position)
        )
        for index, sample, execution, model, cost, *numbers in connection.execute(query):
            place = places.get((index, sample))
            if place is None or executions[place] != execution:
                continue
            before = models[place]
            models[place] = cell(model) if before is None else f"{before}, {cell(model)}"
            if cost is not None:
                costs[place] = cost + (costs[place] or 0.0)
            for column, value in zip(sums, numbers, strict=True):
                column[place] += value
        return {"models": models, "cost": costs, **dict(zip(_SUMS, sums, strict=True))}


def _among(connection: Connection, column: Column[Any], places: Mapping[tuple[int, int], int]) -> ColumnElement[bool]:
    return among(connection, column, {index for index, _ in places})


def _stored(text: str | None) -> Any:
    """The cell of a stored value. What is no bool, number or text is JSON text already."""
    if text is None:
        return None
    if text[0] in "[{" and not text.startswith('{"$type":'):
        return text
    return cell(decode(text))


_LINES = (
    select(
        RESULT.c.row_index,
        ROW.c.key,
        RESULT.c.sample,
        RESULT.c.execution,
        RESULT.c.status,
        RESULT.c.prompt,
        RESULT.c.model_response,
        RESULT.c.extra,
        RESULT.c.error_type,
        RESULT.c.error_message,
        RESULT.c.error_class,
        RESULT.c.started_at,
        RESULT.c.seconds,
        WORKER.c.hostname,
        WORKER.c.pid,
        ROW.c.content,
    )
    .select_from(RESULT_AND_ROW.outerjoin(WORKER, WORKER.c.id == RESULT.c.worker_id))
    .where(
        RESULT.c.evaluation_id == bindparam("evaluation"),
        tuple_(RESULT.c.row_index, RESULT.c.sample) > tuple_(bindparam("after_index"), bindparam("after_sample")),
        RESULT.c.row_index < bindparam("end"),
    )
    .order_by(RESULT.c.row_index, RESULT.c.sample)
    .limit(bindparam("rows"))
)

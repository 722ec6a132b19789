"""What a view of `doteval query` is: its name, its columns with their types, and the function that reads it."""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.core.experiments import Evaluation
from doteval.store.store import Store

# Rows of a part: a query for some indexes reads no more than this many others.
_PART_ROWS = 50_000
Page = Mapping[str, Sequence[Any]]


class Kind(enum.Enum):
    """The type of a column of a view, by DuckDB's name. A MOMENT is here a number of seconds since 1970 (UTC)."""

    TEXT = "VARCHAR"
    JSON = "JSON"
    INTEGER = "BIGINT"
    NUMBER = "DOUBLE"
    FLAG = "BOOLEAN"
    MOMENT = "TIMESTAMP WITH TIME ZONE"
    TEXTS = "VARCHAR[]"
    NUMBERS = "MAP(VARCHAR, DOUBLE)"


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a view that are of one evaluation and have these row indexes, `end` not included, None for all."""

    evaluation: Evaluation
    first: int
    end: int | None


@dataclass(frozen=True, slots=True)
class View:
    """A table for queries.

    columns: their types by name.
    has_parts: whether it is read part by part, or else at once.
    read: yields pages with at least the columns that are asked for, of a part.
    """

    name: str
    columns: Mapping[str, Kind]
    has_parts: bool
    read: Callable[[Store, Collection[str], Part | None], Iterator[Page]]


def parts(evaluations: Sequence[Evaluation]) -> list[Part]:
    """Return the parts of a view that has some, for all evaluations."""
    found = []
    for evaluation in evaluations:
        # All samples: with several of each row, the last parts are empty.
        firsts = list(range(0, max(evaluation.counts.total or 0, 1), _PART_ROWS))
        ends = [*firsts[1:], None]
        found += [Part(evaluation, first, end) for first, end in zip(firsts, ends, strict=True)]
    return found


def as_page(lines: Iterable[Mapping[str, Any]]) -> Page:
    """The columns of lines that all have the same names."""
    columns: dict[str, list[Any]] = defaultdict(list)
    for line in lines:
        for name, value in line.items():
            columns[name].append(value)
    return columns

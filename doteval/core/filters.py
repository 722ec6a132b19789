"""Filters of results: conditions on the fields of a stored result, and what they mean.

A field has a value: None, a bool, a number, a text, or anything else that JSON has. The meaning is that of two truth
values, as in Python: `!=` is true exactly where `=` is not, also for a field without a value.

- True counts as 1 and False as 0. Numbers are compared as floats, texts by code points.
- A text and a number are never equal, and neither is less than the other.
- `~` looks for a text in a text, or in the JSON of a list or an object. Letters match in either case.

`doteval.core.filter_grammar` reads filters, and `doteval.store.filter_sql` compiles them to SQL.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from doteval.core.json_codec import encode

# A name that needs no quotes.
FIELD_NAME = re.compile(r"[^\W\d](?:[\w-]*\w)?")

FilterValue = None | bool | float | str


class FieldKind(StrEnum):
    """Where the value of a field comes from: a score, a column of the row, its metadata, or the result itself."""

    SCORE = "score"
    ROW = "row"
    METADATA = "metadata"
    RESULT = "result"


@dataclass(frozen=True, slots=True)
class FilterField:
    """A field of a result: `score.NAME`, `row.COLUMN`, `metadata.KEY`, or a name of `RESULT_FIELDS`."""

    kind: FieldKind
    name: str

    def __str__(self) -> str:
        if self.kind is FieldKind.RESULT:
            return self.name
        return f"{self.kind}.{self.name if FIELD_NAME.fullmatch(self.name) else quoted(self.name)}"


class FieldNames(NamedTuple):
    """The names that may follow `score.`, `row.` and `metadata.` in a field; None for any."""

    scores: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    metadata: Sequence[str] | None = None


ANY_NAMES = FieldNames()

# What the fields of a result hold.
RESULT_FIELDS: Mapping[str, str] = {
    "index": "the position of the row in the dataset",
    "key": "the key of the row, a hash of its content",
    "sample": "the number of the sample, from 0 on",
    "status": "done, failed or skipped",
    "error": "the message of the error",
    "error_type": "the type of the error, as ValueError",
    "error_class": "evaluation, infrastructure, quota, timeout or crash",
    "prompt": "what was asked",
    "response": "what the model answered",
    "tokens": "tokens of prompts and completions",
    "prompt_tokens": "tokens of prompts",
    "completion_tokens": "tokens of completions",
    "cost": "US dollars, if a price is known",
    "seconds": "how long the row took",
    "attempts": "how often the row was tried",
    "worker": "where it ran, as host:pid",
    "label": "what people say of it: right, wrong, or disputed",
}


class Comparator(StrEnum):
    EQUAL = "="
    UNEQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    MORE = ">"
    AT_LEAST = ">="
    CONTAINS = "~"


@dataclass(frozen=True, slots=True)
class FieldComparison:
    """A field compared with a value. An order and `~` need a value other than None, `~` a text."""

    field: FilterField
    comparator: Comparator
    value: FilterValue


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether a field equals one of several values."""

    field: FilterField
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Whether every part is true; of no parts, it is."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Whether some part is true."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Negation:
    """Whether a filter is not true."""

    part: Filter


Filter = FieldComparison | Membership | AllOf | AnyOf | Negation

STATUS = FilterField(FieldKind.RESULT, "status")
LABEL = FilterField(FieldKind.RESULT, "label")


def wrong_rows(scores: Sequence[str]) -> Filter:
    """The filter of rows that are done and have a score of 0."""
    zero = (FieldComparison(FilterField(FieldKind.SCORE, name), Comparator.EQUAL, 0.0) for name in scores)
    return AllOf((FieldComparison(STATUS, Comparator.EQUAL, "done"), AnyOf(tuple(zero))))


def failed_rows() -> Filter:
    """The filter of rows that failed."""
    return FieldComparison(STATUS, Comparator.EQUAL, "failed")


ORDERS: Mapping[Comparator, Callable[[Any, Any], Any]] = {
    Comparator.LESS: operator.lt,
    Comparator.AT_MOST: operator.le,
    Comparator.MORE: operator.gt,
    Comparator.AT_LEAST: operator.ge,
}


def matches(wanted: Filter, value_of: Callable[[FilterField], Any]) -> bool:
    """Whether a filter is true for the values that `value_of` gives for fields.

    >>> score = FilterField(FieldKind.SCORE, "exact_match")
    >>> matches(FieldComparison(score, Comparator.EQUAL, 0.0), lambda field: False)
    True
    """
    if isinstance(wanted, AllOf):
        return all(matches(part, value_of) for part in wanted.parts)
    if isinstance(wanted, AnyOf):
        return any(matches(part, value_of) for part in wanted.parts)
    if isinstance(wanted, Negation):
        return not matches(wanted.part, value_of)
    value = value_of(wanted.field)
    if isinstance(wanted, Membership):
        return any(_equal(value, each) for each in wanted.values)
    return _compare(value, wanted.comparator, wanted.value)


def _compare(value: Any, comparator: Comparator, given: FilterValue) -> bool:
    if comparator is Comparator.EQUAL:
        return _equal(value, given)
    if comparator is Comparator.UNEQUAL:
        return not _equal(value, given)
    if comparator is Comparator.CONTAINS:
        text = searched(value)
        return text is not None and isinstance(given, str) and contains(text, given)
    mine, theirs = number_of(value), number_of(given)
    if mine is not None and theirs is not None:
        return bool(ORDERS[comparator](mine, theirs))
    return isinstance(value, str) and isinstance(given, str) and bool(ORDERS[comparator](value, given))


def _equal(value: Any, given: FilterValue) -> bool:
    if given is None:
        return value is None
    if isinstance(given, str):
        return isinstance(value, str) and value == given
    return number_of(value) == number_of(given)


def number_of(value: Any) -> float | None:
    """A bool or a number as a float, None for anything else and for numbers that are not finite."""
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def searched(value: Any) -> str | None:
    """The text in which `~` looks: a text itself, the JSON of a list or an object, None for anything else."""
    if isinstance(value, str):
        return value
    return encode(value) if isinstance(value, list | dict) else None


def contains(text: str, wanted: str) -> bool:
    """Whether a text contains another, where letters of the wanted one match in either case.

    >>> contains("Die ÄPFEL sind", "äpfel"), contains("straße", "STRASSE")
    (True, False)
    """
    table = str.maketrans(dict(case_pairs(wanted)))
    return wanted.translate(table) in text.translate(table)


def case_pairs(text: str) -> list[tuple[str, str]]:
    """The letters of a text, large and small, each pair once. Letters that become two in the other case have none.

    >>> case_pairs("Ab1ß")
    [('A', 'a'), ('B', 'b')]
    """
    pairs: dict[str, str] = {}
    for letter in text:
        small = letter.lower()
        large = small.upper()
        if len(small) == len(large) == 1 and large != small and large.lower() == small and letter in (small, large):
            pairs[large] = small
    return sorted(pairs.items())


def quoted(text: str) -> str:
    """A text as a filter has it.

    >>> quoted("it's")
    "'it\\\\'s'"
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n").replace("\t", "\\t")
    return f"'{escaped}'"


def fields_of(wanted: Filter) -> list[FilterField]:
    """The fields that a filter names, each once."""
    if isinstance(wanted, FieldComparison | Membership):
        return [wanted.field]
    parts = (wanted.part,) if isinstance(wanted, Negation) else wanted.parts
    return list(dict.fromkeys(field for part in parts for field in fields_of(part)))


def to_text(wanted: Filter) -> str:
    """A filter as a text that `doteval.core.filter_grammar.parse_filter` reads back."""
    if isinstance(wanted, FieldComparison):
        return f"{wanted.field} {wanted.comparator} {_literal(wanted.value)}"
    if isinstance(wanted, Membership):
        return f"{wanted.field} in ({', '.join(map(_literal, wanted.values))})"
    if isinstance(wanted, Negation):
        return f"not ({to_text(wanted.part)})"
    word = " and " if isinstance(wanted, AllOf) else " or "
    return word.join(f"({to_text(part)})" for part in wanted.parts)


def _literal(value: FilterValue) -> str:
    return quoted(value) if isinstance(value, str) else json.dumps(value)

"""Compiles filters of results to conditions in SQL, with bound values, for SQLite and PostgreSQL.

Each condition is true or false, never NULL, so that `not` means what it says. Statements that use them select from
`RESULT` joined with `ROW`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Float,
    Select,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)

from doteval.core.filters import (
    LABEL,
    ORDERS,
    AllOf,
    AnyOf,
    Comparator,
    FieldComparison,
    FieldKind,
    Filter,
    FilterField,
    FilterValue,
    Membership,
    Negation,
    case_pairs,
    contains,
    number_of,
)
from doteval.core.json_codec import encode, escape_text
from doteval.core.results import RowStatus
from doteval.core.row_labels import DISPUTED, LabelJudgement
from doteval.store.tables import ATTEMPT, RESULT, ROW, ROW_LABEL, SCORE, USAGE, WORKER

Condition = ColumnElement[bool]

# SQLite before 3.42 does not undo escapes in a path. Keys with one of these are looked for one by one.
_ESCAPED_IN_JSON = frozenset('"\\') | {chr(code) for code in range(0x20)}
# Characters of a pattern, each of up to four bytes: SQLite's LIKE takes 50,000 bytes.
_LONGEST_PATTERN = 5_000


@dataclass(frozen=True, slots=True)
class FieldSql:
    """A field in SQL: its value as a number, as a text, and as the text that `~` searches; NULL if it is none."""

    number: ColumnElement[Any]
    text: ColumnElement[Any]
    searched: ColumnElement[Any]
    is_null: Condition


class FilterCompiler:
    """Compiles filters for the results of one evaluation.

    first, end: the filters are only used for rows with these indexes, `end` not included. Scores outside of them are
        not read.
    """

    def __init__(self, dialect: str, evaluation_id: int, *, first: int | None = None, end: int | None = None) -> None:
        self._dialect = dialect
        self._evaluation_id = evaluation_id
        self._first, self._end = first, end

    def condition(self, wanted: Filter) -> Condition:
        """The condition for a filter."""
        if isinstance(wanted, AllOf):
            return and_(true(), *map(self.condition, wanted.parts))
        if isinstance(wanted, AnyOf):
            return or_(false(), *map(self.condition, wanted.parts))
        if isinstance(wanted, Negation):
            return not_(self.condition(wanted.part))
        if isinstance(wanted, Membership):
            return or_(false(), *(self._compared(wanted.field, Comparator.EQUAL, each) for each in wanted.values))
        return self._comparison(wanted)

    def holds(self, columns: Sequence[str], wanted: str) -> Condition:
        """Whether the prompt, the response or a value of the row holds a text, where letters match in either case.

        It is found in what is stored, which is JSON: numbers and the names of nested values are found, too.

        columns: those of the rows, whose names do not count.
        """
        as_stored = encode(wanted)[1:-1]
        content: ColumnElement[Any] = ROW.c.content
        for name in columns:
            if contains(encode(name), as_stored):
                content = func.replace(content, f"{encode(name)}:", '"":')
        places = (content, RESULT.c.prompt, RESULT.c.model_response)
        return or_(*(func.coalesce(self._contains(place, as_stored), false()) for place in places))

    def field(self, field: FilterField) -> FieldSql:
        """A field, for sorting and grouping."""
        if field.kind is FieldKind.SCORE:
            return self._score_value(field.name)
        if field.kind is FieldKind.ROW:
            return self._json(ROW.c.content, field.name)
        if field.kind is FieldKind.METADATA:
            return self._json(RESULT.c.extra, field.name)
        return self._result_field(field.name)

    def json_of_row(self, field: FilterField) -> ColumnElement[Any] | None:
        """The JSON of a value of the row, which is read once where `field` reads it for each form of the value.

        None for other fields, and for columns that have to be looked for.
        """
        if field.kind is not FieldKind.ROW or not _ESCAPED_IN_JSON.isdisjoint(field.name):
            return None
        if self._dialect == "sqlite":
            return ROW.c.content.op("->", return_type=Text())(literal(f'$."{field.name}"', Text))
        return cast(self._parsed(ROW.c.content).op("->", return_type=JSON())(literal(field.name, Text)), Text)

    def metadata_keys(self) -> Select[Any]:
        """The keys of the metadata of results."""
        if self._dialect == "sqlite":
            entries = func.json_each(RESULT.c.extra).table_valued("key")
            return select(entries.c.key).select_from(RESULT.join(entries, true()))
        return select(func.json_object_keys(self._parsed(RESULT.c.extra))).select_from(RESULT)

    def _comparison(self, wanted: FieldComparison) -> Condition:
        if wanted.comparator is Comparator.UNEQUAL:
            return not_(self._compared(wanted.field, Comparator.EQUAL, wanted.value))
        return self._compared(wanted.field, wanted.comparator, wanted.value)

    def _compared(self, field: FilterField, comparator: Comparator, value: FilterValue) -> Condition:
        is_status = field.kind is FieldKind.RESULT and field.name == "status"
        if is_status and comparator is Comparator.EQUAL and isinstance(value, str):
            equal = RESULT.c.status == value
            # Both databases find the few rows that are not done by an index, if the condition says so.
            return equal if value == RowStatus.DONE else and_(equal, RESULT.c.status != RowStatus.DONE.value)
        if field == LABEL and (value is None or comparator is Comparator.EQUAL):
            # Few rows have labels. They are found first, and not looked for at each row.
            labelled = self._labelled(value)
            return not_(labelled) if value is None else labelled
        if field.kind is not FieldKind.SCORE:
            decided = self._decided(self.field(field), comparator, value)
            stored = _document_of(field)
            if stored is None or not isinstance(value, str) or not _is_stored_as_it_is(value):
                return decided
            if comparator is Comparator.EQUAL:
                value = encode(value)
            elif comparator is not Comparator.CONTAINS:
                return decided
            # To look into JSON takes several times as long as to find a text in it, and most rows do not hold it.
            return case((func.coalesce(self._contains(stored, value), false()), decided), else_=false())
        scores = self._scores(field.name)
        if value is None:
            return not_(_is_among(scores.where(SCORE.c.value != "null")))
        if comparator is Comparator.EQUAL and isinstance(value, str):
            # The stored form of a text has one spelling.
            return _is_among(scores.where(SCORE.c.value == encode(value)))
        return _is_among(scores.where(self._decided(self._json_score(), comparator, value)))

    def _decided(self, sql: FieldSql, comparator: Comparator, value: FilterValue) -> Condition:
        if value is None:
            return sql.is_null
        if comparator is Comparator.CONTAINS:
            found = self._contains(sql.searched, str(value))
        elif isinstance(value, str):
            given: Any = literal(value, Text)
            mine = sql.text
            if comparator is Comparator.EQUAL:
                found = mine == given
            else:
                found = ORDERS[comparator](self._by_code_point(mine), self._by_code_point(given))
        else:
            number = literal(number_of(value), Float)
            found = sql.number == number if comparator is Comparator.EQUAL else ORDERS[comparator](sql.number, number)
        return func.coalesce(found, false())

    def _contains(self, text: ColumnElement[Any], wanted: str) -> Condition:
        # lower() changes ASCII only, on SQLite always and on PostgreSQL in this collation; the rest is replaced.
        pairs = case_pairs(wanted)
        if self._dialect == "sqlite" and all(large.isascii() for large, _ in pairs) and len(wanted) < _LONGEST_PATTERN:
            # It takes half the time of instr(), and ignores the case of ASCII letters only.
            pattern = wanted.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
            return text.like(literal(f"%{pattern}%", Text), escape="\\")
        folded = func.lower(self._by_code_point(text)) if any(large.isascii() for large, _ in pairs) else text
        for large, small in pairs:
            if not large.isascii():
                folded = func.replace(folded, large, small)
            wanted = wanted.replace(large, small)
        position = func.instr(folded, wanted) if self._dialect == "sqlite" else func.strpos(folded, wanted)
        return position > 0

    def _by_code_point(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """A text that is compared by code points, as SQLite does by itself."""
        return text if self._dialect == "sqlite" else text.collate("C")

    def _labelled(self, value: FilterValue) -> Condition:
        """Whether the label of a result is a value, any at all for None."""
        query = select(ROW_LABEL.c.row_index, ROW_LABEL.c.sample, ROW_LABEL.c.execution)
        query = query.where(ROW_LABEL.c.evaluation_id == self._evaluation_id)
        if self._first is not None:
            query = query.where(ROW_LABEL.c.row_index >= self._first)
        if self._end is not None:
            query = query.where(ROW_LABEL.c.row_index < self._end)
        query = query.group_by(ROW_LABEL.c.row_index, ROW_LABEL.c.sample, ROW_LABEL.c.execution)
        if value is not None:
            query = query.having(_label_of_all() == (value if isinstance(value, str) else ""))
        # A label of an earlier result of the row has another execution.
        return tuple_(RESULT.c.row_index, RESULT.c.sample, RESULT.c.execution).in_(query)

    def _scores(self, name: str) -> Select[Any]:
        scores = select(SCORE.c.row_index, SCORE.c.sample).where(
            SCORE.c.evaluation_id == self._evaluation_id, _stored(SCORE.c.name) == escape_text(name)
        )
        if self._first is not None:
            scores = scores.where(SCORE.c.row_index >= self._first)
        return scores if self._end is None else scores.where(SCORE.c.row_index < self._end)

    def _json_score(self) -> FieldSql:
        as_json = self._json(SCORE.c.value)
        # The number that metrics take the value for, of values of libraries and of pairs too.
        return FieldSql(SCORE.c.number, as_json.text, as_json.searched, as_json.is_null)

    def _score_value(self, name: str) -> FieldSql:
        json = self._json_score()

        def value(column: ColumnElement[Any]) -> ColumnElement[Any]:
            of_result = (
                SCORE.c.evaluation_id == RESULT.c.evaluation_id,
                SCORE.c.row_index == RESULT.c.row_index,
                SCORE.c.sample == RESULT.c.sample,
                _stored(SCORE.c.name) == escape_text(name),
            )
            return select(column).where(*of_result).limit(1).correlate(RESULT).scalar_subquery()

        missing = not_(_is_among(self._scores(name).where(SCORE.c.value != "null")))
        return FieldSql(value(json.number), value(json.text), value(json.searched), missing)

    def _json(self, document: ColumnElement[Any], key: str | None = None) -> FieldSql:
        """A value in a JSON document: that of a key, or the whole document."""
        return (self._json_in_sqlite if self._dialect == "sqlite" else self._json_in_postgres)(document, key)

    def _json_in_sqlite(self, document: ColumnElement[Any], key: str | None) -> FieldSql:
        if key is not None and not _ESCAPED_IN_JSON.isdisjoint(key):
            entries = func.json_each(document).table_valued("key", "value", "type")
            of_key = entries.c.key == key
            kind: ColumnElement[Any] = select(entries.c.type).where(of_key).limit(1).scalar_subquery()
            value: ColumnElement[Any] = select(entries.c.value).where(of_key).limit(1).scalar_subquery()
        else:
            path = "$" if key is None else f'$."{key}"'
            kind, value = func.json_type(document, path), func.json_extract(document, path)
        return FieldSql(
            number=case((kind.in_(["integer", "real", "true", "false"]), cast(value, Float))),
            text=case((kind == "text", value)),
            searched=case((kind.in_(["text", "array", "object"]), value)),
            is_null=func.coalesce(kind, "null") == "null",
        )

    def _json_in_postgres(self, document: ColumnElement[Any], key: str | None) -> FieldSql:
        json = self._parsed(document)
        if key is not None:
            json = json.op("->", return_type=JSON())(literal(key, Text))
        kind = func.json_typeof(json)
        text = json.op("#>>", return_type=Text())(cast(literal("{}", Text), ARRAY(Text)))
        return FieldSql(
            number=case(
                (kind == "number", cast(text, Float)), (kind == "boolean", case((text == "true", 1.0), else_=0.0))
            ),
            text=case((kind == "string", text)),
            searched=case((kind == "string", text), (kind.in_(["array", "object"]), cast(json, Text))),
            is_null=func.coalesce(kind, "null") == "null",
        )

    def _parsed(self, document: ColumnElement[Any]) -> ColumnElement[Any]:
        # PostgreSQL refuses NUL; this is how doteval writes it in texts (`escape_text`).
        return cast(func.replace(document, "\\u0000", "\\u001a0"), JSON)

    def _result_field(self, name: str) -> FieldSql:
        if name in ("prompt", "response"):
            return self._json(RESULT.c.prompt if name == "prompt" else RESULT.c.model_response)
        if name in _NUMBERS:
            number = _NUMBERS[name]()
            return FieldSql(number, cast(null(), Text), cast(null(), Text), number.is_(None))
        text = _TEXTS[name]()
        return FieldSql(cast(null(), Float), text, text, text.is_(None))


def _document_of(field: FilterField) -> ColumnElement[Any] | None:
    """The JSON that holds the value of a field among others, or alone."""
    if field.kind is FieldKind.ROW:
        return ROW.c.content
    if field.kind is FieldKind.METADATA:
        return RESULT.c.extra
    return {"prompt": RESULT.c.prompt, "response": RESULT.c.model_response}.get(field.name)


def _is_stored_as_it_is(text: str) -> bool:
    """Whether JSON holds a text without escapes, in a text as in the JSON of a list."""
    return _ESCAPED_IN_JSON.isdisjoint(text)


def _stored(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """A column with its stored text, which is not restored."""
    return type_coerce(column, Text)


def _is_among(keys: Select[Any]) -> Condition:
    return tuple_(RESULT.c.row_index, RESULT.c.sample).in_(keys)


def _used(total: ColumnElement[Any]) -> ColumnElement[Any]:
    of_result = (USAGE.c[name] == RESULT.c[name] for name in ("evaluation_id", "row_index", "sample", "execution"))
    return select(total).where(*of_result).correlate(RESULT).scalar_subquery()


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)


def _attempts() -> ColumnElement[Any]:
    of_result = (ATTEMPT.c[name] == RESULT.c[name] for name in ("evaluation_id", "row_index", "sample"))
    return select(func.count() + 1).select_from(ATTEMPT).where(*of_result).correlate(RESULT).scalar_subquery()


def _worker() -> ColumnElement[Any]:
    name = _stored(WORKER.c.hostname) + ":" + cast(WORKER.c.pid, Text)
    return select(name).where(WORKER.c.id == RESULT.c.worker_id).correlate(RESULT).scalar_subquery()


def _label_of_all() -> ColumnElement[Any]:
    """What the labels of a group say, as `doteval.core.row_labels.label_of` does; NULL without any."""
    right = _sum(case((ROW_LABEL.c.judgement == LabelJudgement.RIGHT.value, 1), else_=0))
    said = case(
        (right == func.count(), LabelJudgement.RIGHT.value), (right == 0, LabelJudgement.WRONG.value), else_=DISPUTED
    )
    return case((func.count() > 0, said))


def _label() -> ColumnElement[Any]:
    of_result = (ROW_LABEL.c[name] == RESULT.c[name] for name in ("evaluation_id", "row_index", "sample", "execution"))
    return select(_label_of_all()).select_from(ROW_LABEL).where(*of_result).correlate(RESULT).scalar_subquery()


_NUMBERS: dict[str, Callable[[], ColumnElement[Any]]] = {
    "index": lambda: RESULT.c.row_index,
    "sample": lambda: RESULT.c.sample,
    "tokens": lambda: _used(_sum(USAGE.c.prompt_tokens + USAGE.c.completion_tokens)),
    "prompt_tokens": lambda: _used(_sum(USAGE.c.prompt_tokens)),
    "completion_tokens": lambda: _used(_sum(USAGE.c.completion_tokens)),
    "cost": lambda: _used(func.sum(USAGE.c.cost)),
    "seconds": lambda: RESULT.c.seconds,
    "attempts": _attempts,
}
_TEXTS: dict[str, Callable[[], ColumnElement[Any]]] = {
    "key": lambda: _stored(ROW.c.key),
    "status": lambda: RESULT.c.status,
    "error": lambda: _stored(RESULT.c.error_message),
    "error_type": lambda: _stored(RESULT.c.error_type),
    "error_class": lambda: RESULT.c.error_class,
    "worker": _worker,
    "label": _label,
}

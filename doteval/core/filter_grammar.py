"""Reads filters of results: ``score.exact_match = 0 and row.category = 'geo' and tokens > 500``.

The grammar is Lark's. An error shows the place in the text and what can be there.
"""

from __future__ import annotations

import difflib
import functools
import re
from typing import TYPE_CHECKING, Any

from doteval.core.filters import (
    ANY_NAMES,
    RESULT_FIELDS,
    AllOf,
    AnyOf,
    Comparator,
    FieldComparison,
    FieldKind,
    FieldNames,
    Filter,
    FilterField,
    FilterValue,
    Membership,
    Negation,
)
from doteval.core.results import ErrorClass, RowStatus
from doteval.core.row_labels import DISPUTED, LabelJudgement
from doteval.errors import UsageError

if TYPE_CHECKING:
    from lark import Lark, Token

_GRAMMAR = r"""
?filter: either
?either: both ("or"i both)*
?both: negation ("and"i negation)*
?negation: "not"i negation -> negated
         | "(" either ")"
         | field COMPARATOR value -> comparison
         | field "in"i "(" value ("," value)* ")" -> membership
         | field "not"i "in"i "(" value ("," value)* ")" -> exclusion
field: NAME | NAME "." NAME | NAME "." TEXT
value: NUMBER | TEXT | "true"i -> yes | "false"i -> no | "null"i -> nothing

COMPARATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | "~"
NAME: /[^\W\d](?:[\w-]*\w)?/
NUMBER: /-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.])/
TEXT: /'(?:[^'\\]|\\.)*'/s | /"(?:[^"\\]|\\.)*"/s
%ignore /\s+/
"""
# What the parser expects, as users write it.
_SPOKEN = {
    "NAME": "a field",
    "COMPARATOR": "a comparison (= != < <= > >= ~)",
    "NUMBER": "a number",
    "TEXT": "a text in quotes",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "DOT": ".",
    "AND": "and",
    "OR": "or",
    "NOT": "not",
    "IN": "in",
    "TRUE": "true",
    "FALSE": "false",
    "NULL": "null",
    "$END": "the end",
}
_ESCAPES = {"n": "\n", "t": "\t"}
_CHOICES: dict[str, tuple[str, ...]] = {
    "status": (RowStatus.DONE.value, RowStatus.FAILED.value, RowStatus.SKIPPED.value),
    "error_class": tuple(each.value for each in ErrorClass),
    "label": (*(each.value for each in LabelJudgement), DISPUTED),
}
_LARGEST = 1e308
_NAMED = re.compile(r"(?P<kind>score|row|metadata)\s*\.\s*(?:(?P<plain>[^\W\d][\w-]*)|(?P<quoted>'[^']*'|\"[^\"]*\"))")
_UNKNOWN = {
    FieldKind.SCORE: "there is no score {!r}",
    FieldKind.ROW: "the rows have no column {!r}",
    FieldKind.METADATA: "no result has metadata {!r}",
}


def parse_filter(text: str, names: FieldNames = ANY_NAMES) -> Filter:
    """Read a filter.

    names: the names that fields may have

    >>> parse_filter("tokens > 500").value
    500.0

    Raises UsageError: the text is no filter; the message shows the place with a caret.
    """
    return _Reader(text, names).read()


def parse_field(text: str, names: FieldNames = ANY_NAMES) -> FilterField:
    """Read the name of one field, as of ``--sort`` and ``--columns``.

    >>> str(parse_field("row.category"))
    'row.category'

    Raises UsageError: there is no such field.
    """
    return _Reader(text, names).read_field()


def names_in(text: str, kind: FieldKind = FieldKind.SCORE) -> list[str]:
    """The names of scores, or of other fields, that a text may mean, also where it cannot be read.

    >>> names_in("score.f1 > 0.5 or score.'exact match' = 0")
    ['f1', 'exact match']
    """
    found = _NAMED.finditer(text)
    return [each["plain"] or _unquoted(each["quoted"]) for each in found if each["kind"] == kind]


@functools.cache
def _parser(start: str) -> Lark:
    # Imported here: most commands read no filter.
    from lark import Lark

    return Lark(_GRAMMAR, start=start, parser="lalr", propagate_positions=True, maybe_placeholders=False)


class _Reader:
    def __init__(self, text: str, names: FieldNames) -> None:
        self._text = text
        self._known = {
            FieldKind.SCORE: names.scores,
            FieldKind.ROW: names.columns,
            FieldKind.METADATA: names.metadata,
        }

    def read(self) -> Filter:
        found: Filter = self._build(self._tree("filter"))
        return found

    def read_field(self) -> FilterField:
        return self._field(self._tree("field"))

    def _tree(self, start: str) -> Any:
        from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

        bad = re.search("[\x00\ud800-\udfff]", self._text)
        if bad:
            raise self._error(bad.start(), "a character that no text may hold")
        try:
            return _parser(start).parse(self._text)
        except UnexpectedCharacters as error:
            place = error.pos_in_stream if error.pos_in_stream is not None else 0
            what = "a text that is not closed" if self._text[place] in "'\"" else "a character that cannot be here"
            raise self._error(place, what, _expected(error.allowed or ())) from None
        except UnexpectedToken as error:
            end = error.token.type == "$END"
            place = len(self._text.rstrip()) if end else error.token.start_pos or 0
            what = "the filter ends too early" if end else f"{str(error.token)!r} cannot be here"
            raise self._error(place, what, _expected(error.accepts or error.expected)) from None
        except (UnexpectedEOF, UnexpectedInput):
            raise self._error(len(self._text), "the filter ends too early") from None
        except RecursionError:
            raise self._error(0, "the filter is nested too deeply") from None

    def _build(self, tree: Any) -> Filter:
        parts = tree.children
        if tree.data == "either":
            return AnyOf(tuple(map(self._build, parts)))
        if tree.data == "both":
            return AllOf(tuple(map(self._build, parts)))
        if tree.data == "negated":
            return Negation(self._build(parts[0]))
        field = self._field(parts[0])
        if tree.data == "comparison":
            return self._comparison(field, parts[1], parts[2])
        values = tuple(self._checked(field, each) for each in parts[1:])
        chosen = Membership(field, values)
        return Negation(chosen) if tree.data == "exclusion" else chosen

    def _comparison(self, field: FilterField, sign: Token, value: Any) -> FieldComparison:
        comparator = Comparator(str(sign))
        if comparator in (Comparator.EQUAL, Comparator.UNEQUAL):
            return FieldComparison(field, comparator, self._checked(field, value))
        read = self._value(value)
        if comparator is Comparator.CONTAINS and not isinstance(read, str):
            raise self._error(value.meta.start_pos, "~ looks for a text in quotes")
        if read is None:
            raise self._error(value.meta.start_pos, "null is neither less nor more than anything", "Use = or !=.")
        return FieldComparison(field, comparator, read)

    def _checked(self, field: FilterField, value: Any) -> FilterValue:
        """A value that a field may equal."""
        read = self._value(value)
        choices = _CHOICES.get(field.name) if field.kind is FieldKind.RESULT else None
        if choices is not None and read is not None and read not in choices:
            what = f"{field} is never {value.children[0] if value.children else value.data}"
            raise self._error(value.meta.start_pos, what, f"It is one of {', '.join(choices)}.")
        return read

    def _value(self, value: Any) -> FilterValue:
        if value.data != "value":
            return {"yes": True, "no": False, "nothing": None}[value.data]
        (token,) = value.children
        if token.type == "NUMBER":
            number = float(token)
            if abs(number) > _LARGEST:
                raise self._error(token.start_pos, "a number beyond all that can be stored")
            return number
        return _unquoted(str(token))

    def _field(self, tree: Any) -> FilterField:
        first, *rest = tree.children
        if not rest:
            name = str(first)
            if name not in RESULT_FIELDS:
                raise self._error(first.start_pos, f"there is no field {name!r}", self._fields_like(name))
            return FilterField(FieldKind.RESULT, name)
        if str(first) not in [*self._known]:
            raise self._error(
                first.start_pos, f"there are no fields of {str(first)!r}", self._fields_like(f"{first}.{rest[0]}")
            )
        kind = FieldKind(str(first))
        name = _unquoted(str(rest[0])) if rest[0].type == "TEXT" else str(rest[0])
        known = self._known[kind]
        if known is not None and name not in known:
            what = _UNKNOWN[kind].format(name)
            raise self._error(rest[0].start_pos, what, self._fields_like(f"{kind}.{name}"))
        return FilterField(kind, name)

    def _fields_like(self, name: str) -> str:
        names = [str(FilterField(kind, each)) for kind, known in self._known.items() for each in known or ()]
        patterns = [f"{kind}.NAME" for kind, known in self._known.items() if known is None]
        fields = [*names, *patterns, *RESULT_FIELDS]
        near = difflib.get_close_matches(name, fields, n=1)
        return f"{f'Did you mean {near[0]}? ' if near else ''}The fields are {', '.join(fields)}."

    def _error(self, place: int, what: str, remedy: str | None = None) -> UsageError:
        # One line, so that the caret stands below the place; a tab would move it.
        shown = re.sub(r"\s", " ", self._text)
        return UsageError(
            f"{what}:\n  {shown}\n  {' ' * place}^", remedy=remedy, page="troubleshooting#filter-not-read"
        )


def _expected(tokens: Any) -> str:
    names = sorted({_SPOKEN.get(token, token.lower()) for token in tokens})
    return f"Here can be: {', '.join(names)}." if names else ""


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text[1:-1], flags=re.DOTALL)

"""Compares what a judge said of rows with what people said: agreement beyond chance, and the confusion matrix."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.metrics.agreement import Agreement, alpha_agreement, kappa_agreement
from doteval.metrics.intervals import Interval, wilson

STATISTICS = ("kappa", "quadratic-kappa", "alpha", "interval-alpha")

# More values than this are amounts, not categories.
_MOST_CATEGORIES = 20
_WORDS = {
    **dict.fromkeys(("right", "yes", "true", "y", "1"), True),
    **dict.fromkeys(("wrong", "no", "false", "n", "0"), False),
}

Value = bool | float | str


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A row with what the judge said of it, and the labels that people gave it, as they wrote them."""

    key: str
    judged: Any
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JudgeCheck:
    """How far a judge agrees with people.

    rows: how many rows have a score of the judge and a label.
    labels: how many labels they have.
    agreed: how many of these labels are what the judge said.
    share: its 95% interval; of rows with several labels, each label counts.
    agreement: of the judge and the people.
    people: of the people alone, None if no row has two labels. No judge can be expected to agree with people more.
    matrix: labels by label and by what the judge said; None for more values than can be categories.
    """

    rows: int
    labels: int
    agreed: int
    share: Interval | None
    agreement: Agreement
    people: Agreement | None
    matrix: Mapping[tuple[Value, Value], int] | None

    @property
    def categories(self) -> list[Value]:
        """The values of the matrix, in order."""
        return ordered({value for pair in self.matrix or () for value in pair})


def check_judge(rows: Sequence[JudgedRow], statistic: str | None = None) -> JudgeCheck:
    """Compare a judge with people.

    statistic: one of `STATISTICS`. By default alpha if rows have several labels, else kappa; interval-alpha for numbers
        of more than 20 different values.

    Raises UsageError: a label is of another kind than what the judge says, or the statistic does not fit the data.
    """
    read = _reader(rows)
    units = [(_value(row.judged), *(read(row.key, label) for label in row.labels)) for row in rows]
    values = {value for unit in units for value in unit}
    numbers = all(isinstance(value, bool | float) for value in values)
    chosen = statistic or _default(units, values, numbers=numbers)
    several = next((row.key for row in rows if len(row.labels) > 1), None)
    if chosen.endswith("kappa") and several is not None:
        raise UsageError(
            f"kappa compares two raters, and row {several!r} has several labels",
            remedy="Use --statistic alpha, which takes any number of raters.",
        )
    if chosen in ("quadratic-kappa", "interval-alpha") and not numbers:
        raise UsageError(f"{chosen} needs numbers, and these labels are texts", remedy="Use kappa or alpha.")
    if chosen != "interval-alpha" and numbers and len(values) > _MOST_CATEGORIES:
        raise UsageError(
            f"{chosen} compares categories, and there are {counted(len(values), 'different number')}",
            remedy="Use --statistic interval-alpha, for which distances count.",
        )
    agree = _AGREEMENTS[chosen]
    pairs = Counter((label, unit[0]) for unit in units for label in unit[1:])
    agreed = sum(count for (label, judged), count in pairs.items() if label == judged)
    several_labels = [unit[1:] for unit in units if len(unit) > 2]
    return JudgeCheck(
        rows=len(rows),
        labels=pairs.total(),
        agreed=agreed,
        share=wilson(agreed, pairs.total()),
        agreement=agree(units),
        people=agree(several_labels) if several_labels else None,
        matrix=pairs if len(values) <= _MOST_CATEGORIES else None,
    )


def ordered(values: set[Value]) -> list[Value]:
    """Values in order: bools and numbers first, then texts.

    >>> ordered({"b", 2.0, False, "a"})
    [False, 2.0, 'a', 'b']
    """
    return sorted(values, key=lambda value: (isinstance(value, str), value))


_AGREEMENTS: dict[str, Callable[[Sequence[Sequence[Value]]], Agreement]] = {
    "kappa": kappa_agreement,
    "quadratic-kappa": lambda units: kappa_agreement(units, quadratic=True),
    "alpha": alpha_agreement,
    "interval-alpha": lambda units: alpha_agreement(units, interval=True),
}


def _default(units: Sequence[Sequence[Value]], values: set[Value], *, numbers: bool) -> str:
    if numbers and len(values) > _MOST_CATEGORIES:
        return "interval-alpha"
    return "alpha" if any(len(unit) > 2 for unit in units) else "kappa"


def _value(judged: Any) -> Value:
    if isinstance(judged, bool | str):
        return judged
    return float(judged)


def _reader(rows: Sequence[JudgedRow]) -> Callable[[str, str], Value]:
    """How labels are read: as bools, numbers or texts, whichever the judge's values are."""
    kinds = {type(row.judged) for row in rows}
    if kinds <= {bool}:
        return _bool_of
    if kinds <= {bool, int, float}:
        return _number_of
    if kinds == {str}:
        return _words_of(row.judged for row in rows)
    odd = next(row for row in rows if type(row.judged) is not next(iter(kinds)))
    raise UsageError(f"the judge's values are of several kinds: row {odd.key!r} has {odd.judged!r}")


def _words_of(judged: Iterable[str]) -> Callable[[str, str], Value]:
    """How words are read: as the judge's, whatever their case."""
    words = dict.fromkeys(judged)
    spelled: dict[str, str] = {}
    for word in words:
        spelled.setdefault(word.casefold(), word)

    def read(_: str, label: str) -> Value:
        text = label.strip()
        # A word that the judge never says has the case in which it comes first.
        return text if text in words else spelled.setdefault(text.casefold(), text)

    return read


def _bool_of(key: str, label: str) -> Value:
    # Tables with empty cells often hold 1.0 and 0.0.
    found = _WORDS.get(label.strip().casefold().removesuffix(".0"))
    if found is None:
        raise UsageError(
            f"the judge says true or false, and the label {label!r} of row {key!r} is neither",
            remedy=f"Labels may be {', '.join(_WORDS)}.",
        )
    return found


def _number_of(key: str, label: str) -> Value:
    text = label.strip()
    word = _WORDS.get(text.casefold())
    try:
        number = float(text) if word is None or text.isdigit() else float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"the judge gives numbers, and the label {label!r} of row {key!r} is no number")
    return number

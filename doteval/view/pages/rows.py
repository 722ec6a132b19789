"""The rows of an evaluation: all, or those that a filter and a text match, in the order of the dataset or sorted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.analysis.readable_values import short_value
from doteval.analysis.record_fields import record_value
from doteval.core.experiments import EvaluationStatus
from doteval.core.filter_grammar import parse_field
from doteval.core.filters import LABEL, RESULT_FIELDS, STATUS, FieldKind, FilterField
from doteval.core.results import Record
from doteval.errors import UsageError
from doteval.store.row_pages import RowKey
from doteval.view.paging import Paging
from doteval.view.row_choice import MOST_FLIPPED, PAGE, PART, SHOWN, RowChoice
from doteval.view.visit import Page, Visit

# Columns of rows that are shown when nobody chooses, and fields that can be chosen.
_COLUMNS = 5
_CHOICES = 200
# Characters of a value in the table.
_CHARACTERS = 100
_ATTEMPTS = FilterField(FieldKind.RESULT, "attempts")
_SECONDS = FilterField(FieldKind.RESULT, "seconds")
_NUMBERS = frozenset(("index", "sample", "tokens", "prompt_tokens", "completion_tokens", "cost", "seconds", "attempts"))
_KEY = re.compile(r"(\d{1,15})\.(\d{1,10})", re.ASCII)
_MOST_SAMPLES = 2**31 - 1


@dataclass(frozen=True, slots=True)
class ShownColumn:
    """A column of the table. `text` names its field in URLs."""

    field: FilterField
    text: str
    is_number: bool
    is_score: bool


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row in the table, with the texts of its cells."""

    record: Record
    link: str
    cells: Sequence[str]


@dataclass(frozen=True, slots=True)
class RowsFound:
    """The rows of one page.

    previous, next: links, None at the ends.
    looked_at: of `rows`; less than those for a look that was ended before the page was full.
    ended_early: whether it was.
    computing: whether the list is being computed, and there are no rows yet.
    first: the place of the first one in a list, from 0; None for rows that are no list.
    total: how many rows changed, None for others.
    """

    keys: Sequence[RowKey] = ()
    previous: str | None = None
    next: str | None = None
    looked_at: int = 0
    rows: int = 0
    ended_early: bool = False
    computing: bool = False
    first: int | None = None
    total: int | None = None


def read(visit: Visit) -> Mapping[str, Any]:
    """Read a page of rows."""
    given = visit.parameters
    chosen = given.texts("column")
    choice = RowChoice.of(visit, chosen)
    evaluation = choice.evaluation
    is_running = evaluation.status is EvaluationStatus.RUNNING
    columns = _columns(visit, choice, chosen)
    # A list has pages, and other rows have places; a link from one to the other leaves out what it does not need.
    for name in ("after", "before", "from", "page"):
        given.text(name)
    if choice.problem is not None:
        visit.status = 400
        found = RowsFound()
    else:
        found = _listed(visit, choice) if choice.is_listed else _walked(visit, choice)
    visit.live(running=is_running or found.computing)
    return {
        "choice": choice,
        "columns": columns,
        "fields": _fields(choice),
        "chosen": {each.text for each in columns},
        "found": found,
        "listed": _rows(visit, choice, columns, found),
        "shows": SHOWN,
        "most": MOST_FLIPPED,
        "shell": visit.command("show", choice.experiment.name, *_arguments(choice)),
    }


def _walked(visit: Visit, choice: RowChoice) -> RowsFound:
    """The rows behind or before the one that the URL names."""
    given = visit.parameters
    after, before = _key(visit, "after"), _key(visit, "before")
    first = given.text("from")
    if first is not None:
        after = (given.number("from", 0, least=0, most=10**15 - 1), -1)
    nowhere: dict[str, None] = {"after": None, "before": None, "from": None}
    if before is not None:
        page = choice.before(visit.store, before, PAGE)
        behind: RowKey | None = page.keys[-1] if page.keys else _just_before(before)
        ahead = page.reached
    else:
        page = choice.after(visit.store, after, PAGE)
        behind = page.reached
        ahead = None if after is None else page.keys[0] if page.keys else (after[0], after[1] + 1)
    return RowsFound(
        page.keys,
        None if ahead is None else visit.here(**{**nowhere, "before": _text(ahead)}),
        None if behind is None else visit.here(**{**nowhere, "after": _text(behind)}),
        page.looked_at,
        page.rows,
        page.reached is not None and len(page.keys) < PAGE,
    )


def _listed(visit: Visit, choice: RowChoice) -> RowsFound:
    """The rows of a list on the page that the URL names."""
    keys = choice.listed(visit)
    if keys is None:
        return RowsFound(computing="rows" not in visit.problems)
    if choice.show == "flipped":
        paging = Paging.of(visit, len(keys), PAGE)
        return RowsFound(keys[paging.slice], paging.previous, paging.next, first=paging.first, total=len(keys))
    number = choice.page
    first = (number - 1) * PAGE
    place = first - choice.part * PART
    return RowsFound(
        keys[place : place + PAGE],
        visit.here(page=number - 1 if number > 2 else None) if number > 1 else None,
        visit.here(page=number + 1) if len(keys) > place + PAGE else None,
        first=first,
    )


def _rows(visit: Visit, choice: RowChoice, columns: Sequence[ShownColumn], found: RowsFound) -> Sequence[ListedRow]:
    listed = []
    begin = None if found.first is None else found.first - choice.part * PART
    for number, record in enumerate(visit.store.results.of_keys(choice.evaluation.id, found.keys)):
        attempts = None
        if any(each.field == _ATTEMPTS for each in columns):
            tried = visit.store.attempts.of_row(choice.evaluation.id, record.row.index)
            attempts = sum(each.sample == record.row.sample for each in tried)
        values = [record_value(record, each.field, attempts=attempts) for each in columns]
        cells = [_cell(column.field, value) for column, value in zip(columns, values, strict=True)]
        place = None if begin is None else begin + number
        listed.append(ListedRow(record, choice.row_link((record.row.index, record.row.sample), place), cells))
    return listed


def _cell(field: FilterField, value: Any) -> str:
    if field == _SECONDS and isinstance(value, float):
        # Four digits of a microsecond would be no easier to compare.
        return f"{value:.3f}"
    return short_value(value, _CHARACTERS)


def _columns(visit: Visit, choice: RowChoice, chosen: Sequence[str]) -> list[ShownColumn]:
    """The columns that were chosen, or else the usual ones."""
    if chosen:
        fields = [parse_field(each, choice.names) for each in chosen]
    else:
        fields = [STATUS, *(FilterField(FieldKind.SCORE, name) for name in choice.scores[:_COLUMNS])]
        own = [FilterField(FieldKind.ROW, name) for name in choice.columns[:_COLUMNS]]
        # What is asked and answered is seen without scrolling to the side.
        fields += [*own[:1], FilterField(FieldKind.RESULT, "response"), *own[1:], _SECONDS]
        if choice.show == "failed":
            fields.insert(1, FilterField(FieldKind.RESULT, "error"))
        if visit.store.row_labels.state(choice.evaluation.id)[0]:
            fields.insert(1, LABEL)
        if choice.order is not None and choice.order.field not in fields:
            fields.insert(1, choice.order.field)
    return [
        ShownColumn(
            each, str(each), each.kind is FieldKind.SCORE or each.name in _NUMBERS, each.kind is FieldKind.SCORE
        )
        for each in dict.fromkeys(fields)
    ]


def _fields(choice: RowChoice) -> list[str]:
    """The texts of the fields that can be chosen as columns."""
    own = [FilterField(FieldKind.SCORE, name) for name in choice.scores]
    own += [FilterField(FieldKind.ROW, name) for name in choice.columns]
    own += [FilterField(FieldKind.METADATA, name) for name in choice.names.metadata or ()]
    results = [FilterField(FieldKind.RESULT, name) for name in RESULT_FIELDS if name != "index"]
    return [str(each) for each in [*own[: _CHOICES - len(results)], *results]]


def _key(visit: Visit, name: str) -> RowKey | None:
    text = visit.parameters.text(name)
    if text is None:
        return None
    found = _KEY.fullmatch(text)
    if found is None:
        raise UsageError(f"{name} in the URL is no place among the rows: {text[:40]!r}", remedy="Begin with all rows.")
    return int(found[1]), min(int(found[2]), _MOST_SAMPLES)


def _text(key: RowKey) -> str:
    return f"{key[0]}.{key[1]}"


def _just_before(key: RowKey) -> RowKey | None:
    index, sample = key
    if sample:
        return index, sample - 1
    return (index - 1, _MOST_SAMPLES) if index else None


def _arguments(choice: RowChoice) -> list[str]:
    """The arguments of `doteval show` for the same rows."""
    found = ["--evaluation", choice.evaluation.spec.nodeid]
    found += [f"--{choice.show}"] if choice.show in ("wrong", "failed") else []
    found += ["--where", choice.where] if choice.where else []
    found += ["--sort", choice.sort] if choice.sort else []
    return found


page = Page("/rows", "rows.html.jinja", read)

"""One row: what was asked and answered, its scores with their reasons, its error, its attempts and its calls."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from doteval.analysis.readable_values import expected_column, readable, short_value
from doteval.analysis.record_documents import record as record_document
from doteval.analysis.tracebacks import own_frames
from doteval.core.experiments import EvaluationStatus
from doteval.core.results import Record, RowStatus
from doteval.core.row_labels import MOST_NAME, MOST_NOTE, RowLabel
from doteval.core.wording import duration
from doteval.errors import NotFoundError
from doteval.report.conversations import answered, asked, calls_of_row, messages_in_common
from doteval.store import Attempt, StoredCall
from doteval.view.labelling import PATH
from doteval.view.parameters import link
from doteval.view.row_choice import RowChoice, chosen_key
from doteval.view.row_texts import ShownText, ShownTexts
from doteval.view.text_differences import marked_difference
from doteval.view.visit import Page, Visit

# Columns of a row, fields of a score's metadata, attempts, and calls that the page shows.
_COLUMNS = 100
_FIELDS = 50
_ATTEMPTS = 50
_CALLS = 50
# Characters of a score's value, and of the expected answer and the response together, whose difference is shown.
_SCORE_CHARACTERS = 400
_COMPARED = 20_000
# Characters of a text on the page that shows more of it.
_WHOLE = 1_000_000


@dataclass(frozen=True, slots=True)
class ShownScore:
    """A score with what its evaluator says of it."""

    name: str
    value: str
    is_wrong: bool
    reasons: Sequence[tuple[str, ShownText]]


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call of the row. `messages` leaves out what it repeats of the call before."""

    call: StoredCall
    facts: str
    repeated: int
    messages: Sequence[tuple[str, ShownText]]
    error: ShownText | None


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Links to the rows before and behind a row in the order of its list, and to the list itself."""

    previous: str | None
    next: str | None
    list: str


def read(visit: Visit) -> Mapping[str, Any]:
    """Read the page of a row."""
    given, store = visit.parameters, visit.store
    choice = RowChoice.of(visit)
    if choice.problem is not None:
        raise choice.problem
    index, sample = chosen_key(given)
    whole = given.choice("texts", ["whole"], "") == "whole"
    markdown = given.choice("markdown", ["1"], "") == "1"
    evaluation = choice.evaluation
    records = store.results.of_row(evaluation.id, index)
    record = next((each for each in records if each.row.sample == sample), None)
    if record is None and not store.rows.keys(evaluation.id, index, index):
        rows = store.rows.dataset_state(evaluation.id).rows
        raise NotFoundError(
            f"{evaluation.spec.nodeid} has no row {index:,}",
            remedy=f"Its rows have the indexes 0 to {rows - 1:,}." if rows else "It has no rows yet.",
        )
    visit.live(running=evaluation.status is EvaluationStatus.RUNNING and record is None)
    texts = ShownTexts(_WHOLE) if whole else ShownTexts()
    attempts = [each for each in store.attempts.of_row(evaluation.id, index) if each.sample == sample]
    calls = [each for each in calls_of_row(store, evaluation, index) if each.sample == sample]
    contents = {} if record is None else _contents(record, texts, markdown=markdown)
    return {
        "choice": choice,
        "index": index,
        "sample": sample,
        "samples": [each.row.sample for each in records],
        "record": record,
        "began": None if record is None else datetime.fromtimestamp(record.outcome.started_at, UTC),
        "neighbours": _neighbours(visit, choice, (index, sample)),
        "whole": whole,
        "texts": texts,
        "markdown": markdown,
        "attempts": attempts[-_ATTEMPTS:],
        "executions": _executions(calls[:_CALLS], texts),
        "calls_left_out": max(0, len(calls) - _CALLS),
        "MOST_NAME": MOST_NAME,
        "MOST_NOTE": MOST_NOTE,
        "label_path": PATH.lstrip("/"),
        "mine": None if record is None or visit.label_form is None else _label_by(record, visit.label_form.person),
        "commands": _commands(visit, choice, index, record, attempts),
        **contents,
    }


def _label_by(record: Record, person: str) -> RowLabel | None:
    return next((each for each in record.labels if each.person == person and not each.of_earlier), None)


def _contents(record: Record, texts: ShownTexts, *, markdown: bool) -> Mapping[str, Any]:
    """What the page shows of the result of the row.

    markdown: whether to render that of the response, in place of what differs from the expected answer.
    """
    values, outcome = record.row.values, record.outcome
    expected, difference = expected_column(values), None
    response = outcome.model_response
    if (
        not markdown
        and expected is not None
        and isinstance(response, str)
        and len(values[expected]) + len(response) <= _COMPARED
    ):
        difference = marked_difference(values[expected], response)
    names = [name for name in values if difference is None or name != expected]
    error = outcome.error
    document = _indented(record_document(record))
    return {
        "expected": expected,
        "difference": difference,
        "is_equal": difference is not None and values[expected or ""] == response,
        "prompt": None if outcome.prompt is None else texts.value("prompt", outcome.prompt),
        "response": None if response is None else texts.value("response", response, markdown=markdown),
        "values": [texts.value(name, values[name]) for name in names[:_COLUMNS]],
        "columns_left_out": max(0, len(names) - _COLUMNS),
        "metadata": texts.value("metadata", dict(outcome.metadata)) if outcome.metadata else None,
        "scores": [
            ShownScore(
                score.name,
                short_value(score.value, _SCORE_CHARACTERS),
                score.value is False or score.value == 0,
                [(name, texts.cut(readable(value))) for name, value in list(score.metadata.items())[:_FIELDS]],
            )
            for score in outcome.scores
        ],
        "error_message": None if error is None else texts.cut(error.message),
        "own_frames": None if error is None else texts.cut(own_frames(error.traceback)),
        "traceback": None if error is None else texts.cut(error.traceback),
        "tokens": sum(each.prompt_tokens + each.completion_tokens for each in outcome.usage),
        "cost": sum(each.cost for each in outcome.usage if each.cost is not None) or None,
        "document": texts.cut(document),
    }


def _indented(document: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
    except orjson.JSONEncodeError:
        # A message of an error holds what UTF-8 has not.
        return json.dumps(document, indent=2)


def _executions(calls: Sequence[StoredCall], texts: ShownTexts) -> list[list[ShownCall]]:
    """The calls of a sample by execution, the oldest first."""
    return [list(_shown_calls(group, texts)) for _, group in itertools.groupby(calls, key=lambda each: each.execution)]


def _shown_calls(calls: Iterator[StoredCall], texts: ShownTexts) -> Iterator[ShownCall]:
    before: list[tuple[str, str]] = []
    for call in calls:
        body = call.body
        request, reply = ([], []) if body is None else (asked(body), answered(body))
        repeated = messages_in_common(before, request)
        shown = [(role, texts.cut(text)) for role, text in [*request[repeated:], *reply]]
        error = texts.cut(body.error) if body is not None and body.error else None
        yield ShownCall(call, _facts(call), repeated, shown, error)
        before = [*request, *reply]


def _facts(call: StoredCall) -> str:
    usage = call.usage
    parts = ["" if call.body is None else call.body.endpoint, "judge" if usage.judge else "", call.source.value]
    parts += ["" if call.status == 200 else f"status {call.status}", duration(call.seconds)]
    if usage.prompt_tokens or usage.completion_tokens:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
    return " · ".join(part for part in parts if part)


def _neighbours(visit: Visit, choice: RowChoice, key: tuple[int, int]) -> Neighbours:
    if choice.is_listed:
        rows = link("rows", **choice.parameters(), page=choice.page if choice.page > 1 else None)
        keys = choice.listed(visit)
        place = keys.index(key) if keys is not None and key in keys else None
        if keys is None or place is None:
            return Neighbours(None, None, rows)
        return Neighbours(
            choice.row_link(keys[place - 1], place - 1) if place else None,
            choice.row_link(keys[place + 1], place + 1) if place + 1 < len(keys) else None,
            rows,
        )
    found: list[str | None] = []
    for page, parameter in (
        (choice.before(visit.store, key, 1, neighbour=True), "before"),
        (choice.after(visit.store, key, 1, neighbour=True), "after"),
    ):
        if page.keys:
            found.append(choice.row_link(page.keys[0]))
        elif page.reached is not None:
            # It is too far away to look for it here; the list goes on from where the look ended.
            reached = f"{page.reached[0]}.{page.reached[1]}"
            found.append(link("rows", **choice.parameters(), **{parameter: reached}))
        else:
            found.append(None)
    return Neighbours(found[0], found[1], link("rows", **choice.parameters(), **{"from": key[0]}))


def _commands(
    visit: Visit, choice: RowChoice, index: int, record: Record | None, attempts: Sequence[Attempt]
) -> list[tuple[str, str]]:
    """Commands to copy, each with what it does."""
    row = ("--evaluation", choice.evaluation.spec.nodeid, "--row", str(index))
    name = choice.experiment.name
    found = []
    if record is not None and record.outcome.status is RowStatus.FAILED:
        found.append(("run this row again", visit.command("retry", name, *row)))
        found.append(
            ("the same, with the calls that it has made replayed", visit.command("retry", name, *row, "--replay"))
        )
    if record is None or any(each.to_be_retried for each in attempts):
        found.append(("run the rows that have no result", visit.command("retry", name)))
    found.append(("show it in the terminal", visit.command("show", name, *row)))
    found.append(("the same as JSON", visit.command("show", name, *row, "--json")))
    return found


page = Page("/row", "row.html.jinja", read)

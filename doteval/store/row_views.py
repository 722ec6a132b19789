"""The views of `doteval query` with lines of rows: results, their scores, usage, earlier attempts and calls."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import orjson
from sqlalchemy import Text, bindparam, cast, select, tuple_, type_coerce

from doteval.core.experiments import Evaluation
from doteval.core.json_codec import encode, unescape_text
from doteval.store.calls import StoredCall
from doteval.store.flat_results import USAGE_COLUMNS, stored_cell, usage_sums
from doteval.store.result_pages import ResultPage, result_pages
from doteval.store.statements import driver_lines
from doteval.store.store import Store
from doteval.store.tables import ATTEMPT, SCORE, USAGE, WORKER
from doteval.store.view_schema import Kind, Page, Part, View, as_page

# Their prompts and responses are in memory together.
_ATTEMPTS_AT_ONCE = 1_000
# The same of calls, whose bodies may have megabytes.
_CALLS_AT_ONCE = 100
_OF_BODY = frozenset({"endpoint", "request", "reply", "error"})
_OF_ROW = {
    "experiment": Kind.TEXT,
    "evaluation": Kind.TEXT,
    "index": Kind.INTEGER,
    "sample": Kind.INTEGER,
}
_TOKENS = {
    "requests": Kind.INTEGER,
    "attempts": Kind.INTEGER,
    "cache_hits": Kind.INTEGER,
    "prompt_tokens": Kind.INTEGER,
    "completion_tokens": Kind.INTEGER,
    "cached_tokens": Kind.INTEGER,
    "reasoning_tokens": Kind.INTEGER,
    "cost": Kind.NUMBER,
}
_TOKENS_OF_CALL = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost")
_SCORE_NAME = type_coerce(SCORE.c.name, Text)


def _records(store: Store, wanted: Collection[str], part: Part | None) -> Iterator[Page]:
    used = not {"models", "tokens", *_TOKENS}.isdisjoint(wanted)
    pages = _pages(
        store,
        {"content" if name == "row" else name for name in wanted},
        part,
        scores=(_SCORE_NAME, SCORE.c.number) if "scores" in wanted else (),
        usage=USAGE_COLUMNS if used else (),
    )
    for evaluation, page in pages:
        columns = {**_identity(evaluation, page), **page.columns}
        if "content" in columns:
            columns["row"] = columns["content"]
        for name in ("prompt", "response"):
            if name in columns:
                columns[name] = [_text(text) for text in columns[name]]
        if "scores" in wanted:
            columns["scores"] = _numbers_by_name(page)
        if used:
            columns.update(usage_sums(page))
            both = zip(columns["prompt_tokens"], columns["completion_tokens"], strict=True)
            columns["tokens"] = [prompt + completion for prompt, completion in both]
        yield columns


def _scores(store: Store, _: Collection[str], part: Part | None) -> Iterator[Page]:
    pages = _pages(store, (), part, scores=(_SCORE_NAME, SCORE.c.number, SCORE.c.value))
    for evaluation, page in pages:
        names, numbers, values = _unzipped([line for _, line in page.scores], 3)
        yield {
            **_identity(evaluation, page, [place for place, _ in page.scores]),
            "score": _restored(names),
            "number": numbers,
            "value": values,
        }


def _usage(store: Store, _: Collection[str], part: Part | None) -> Iterator[Page]:
    numbers = (*_TOKENS, "seconds", "waited")
    flags = ("judge", "batch")
    read = (type_coerce(USAGE.c.model, Text), *(USAGE.c[name] for name in (*flags, *numbers)))
    for evaluation, page in _pages(store, (), part, usage=read):
        models, judge, batch, *columns = _unzipped([line for _, line in page.usage], 1 + len(flags) + len(numbers))
        yield {
            **_identity(evaluation, page, [place for place, _ in page.usage]),
            "model": _restored(models),
            # SQLite has no bools.
            "judge": list(map(bool, judge)),
            "batch": list(map(bool, batch)),
            **dict(zip(numbers, columns, strict=True)),
        }


def _attempts(store: Store, _: Collection[str], part: Part | None) -> Iterator[Page]:
    assert part is not None
    names = ("row_index", "sample", "status", "prompt", "model_response", "started_at", "seconds", "error_class")
    query = (
        select(
            ATTEMPT.c.id,
            *(ATTEMPT.c[name] for name in names),
            *(type_coerce(ATTEMPT.c[name], Text) for name in ("error_message", "error_type")),
            type_coerce(WORKER.c.hostname, Text) + ":" + cast(WORKER.c.pid, Text),
        )
        .select_from(ATTEMPT.outerjoin(WORKER, WORKER.c.id == ATTEMPT.c.worker_id))
        .where(
            ATTEMPT.c.evaluation_id == part.evaluation.id,
            ATTEMPT.c.row_index >= part.first,
            tuple_(ATTEMPT.c.row_index, ATTEMPT.c.sample, ATTEMPT.c.id)
            > tuple_(bindparam("index"), bindparam("sample"), bindparam("id")),
        )
        .order_by(ATTEMPT.c.row_index, ATTEMPT.c.sample, ATTEMPT.c.id)
        .limit(_ATTEMPTS_AT_ONCE)
    )
    if part.end is not None:
        query = query.where(ATTEMPT.c.row_index < part.end)
    after = {"index": part.first - 1, "sample": 0, "id": 0}
    while True:
        with store._database.read() as connection:
            lines = driver_lines(connection, query, after)
        if not lines:
            return
        ids, indexes, samples, statuses, prompts, responses, began, seconds, classes, messages, types, workers = zip(
            *lines, strict=True
        )
        yield {
            "experiment": [part.evaluation.experiment.name] * len(lines),
            "evaluation": [part.evaluation.spec.nodeid] * len(lines),
            "index": indexes,
            "sample": samples,
            "status": statuses,
            "prompt": list(map(_text, prompts)),
            "response": list(map(_text, responses)),
            "error": list(map(_unescaped, messages)),
            "error_type": list(map(_unescaped, types)),
            "error_class": classes,
            "started_at": began,
            "seconds": seconds,
            "worker": list(map(_unescaped, workers)),
        }
        after = {"index": indexes[-1], "sample": samples[-1], "id": ids[-1]}


def _calls(store: Store, wanted: Collection[str], part: Part | None) -> Iterator[Page]:
    assert part is not None
    of_row = {"experiment": part.evaluation.experiment.name, "evaluation": part.evaluation.spec.nodeid}
    bodies = not _OF_BODY.isdisjoint(wanted)
    calls = store.calls.stream(part.evaluation.id, (part.first, part.end), bodies=bodies)
    while page := list(itertools.islice(calls, _CALLS_AT_ONCE if bodies else _ATTEMPTS_AT_ONCE)):
        yield as_page({**of_row, "index": index, **_columns_of_call(call, wanted)} for index, call in page)


def _columns_of_call(call: StoredCall, wanted: Collection[str]) -> dict[str, Any]:
    usage, body = call.usage, call.body
    return {
        "sample": call.sample,
        "execution": f"{call.execution:016x}",
        "position": call.position,
        "model": usage.model,
        "source": call.source.value,
        "judge": usage.judge,
        "status": call.status or None,
        "started_at": call.started_at.timestamp(),
        "seconds": call.seconds,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost": usage.cost,
        "endpoint": (body and body.endpoint) or None,
        "request": _as_json(body.request) if body and "request" in wanted else None,
        "reply": _as_json(body.reply) if body and "reply" in wanted else None,
        "error": (body and body.error) or None,
    }


def _as_json(content: bytes) -> str | None:
    """A body that is JSON as it is, any other, such as a stream, as a JSON text; None for an empty one."""
    if not content:
        return None
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return orjson.dumps(content.decode(errors="replace")).decode()
    return content.decode()


def _pages(
    store: Store, wanted: Collection[str], part: Part | None, **columns: Any
) -> Iterator[tuple[Evaluation, ResultPage]]:
    assert part is not None
    for page in result_pages(store._database, part.evaluation.id, wanted, within=(part.first, part.end), **columns):
        yield part.evaluation, page


def _identity(
    evaluation: Evaluation, page: ResultPage, places: Sequence[int] | None = None
) -> dict[str, Sequence[Any]]:
    """What tells the lines of a page, one for each result, or for each of some places."""
    indexes, samples = page.columns["index"], page.columns["sample"]
    if places is not None:
        indexes, samples = [indexes[place] for place in places], [samples[place] for place in places]
    return {
        "experiment": [evaluation.experiment.name] * len(indexes),
        "evaluation": [evaluation.spec.nodeid] * len(indexes),
        "index": indexes,
        "sample": samples,
    }


def _numbers_by_name(page: ResultPage) -> list[dict[str, float | None]]:
    found: list[dict[str, float | None]] = [{} for _ in range(len(page))]
    names: dict[str, str] = {}
    for place, (name, number) in page.scores:
        known = names.get(name)
        if known is None:
            known = names[name] = unescape_text(name)
        # A result may have two scores of one name; a map has the first.
        found[place].setdefault(known, number)
    return found


def _text(stored: str | None) -> str | None:
    """A prompt or a response: the text itself, or JSON of anything else."""
    value = stored_cell(stored)
    return value if value is None or isinstance(value, str) else encode(value)


def _unescaped(stored: str | None) -> str | None:
    return None if stored is None else unescape_text(stored)


def _restored(names: Sequence[str]) -> list[str]:
    return list(map({name: unescape_text(name) for name in set(names)}.__getitem__, names))


def _unzipped(lines: Sequence[tuple[Any, ...]], columns: int) -> list[Sequence[Any]]:
    return list(zip(*lines, strict=True)) if lines else [()] * columns


ROW_VIEWS = (
    View(
        "records",
        {
            **_OF_ROW,
            "key": Kind.TEXT,
            "status": Kind.TEXT,
            "row": Kind.JSON,
            "scores": Kind.NUMBERS,
            "prompt": Kind.TEXT,
            "response": Kind.TEXT,
            "metadata": Kind.JSON,
            "error": Kind.TEXT,
            "error_type": Kind.TEXT,
            "error_class": Kind.TEXT,
            "models": Kind.TEXT,
            "tokens": Kind.INTEGER,
            **_TOKENS,
            "started_at": Kind.MOMENT,
            "seconds": Kind.NUMBER,
            "worker": Kind.TEXT,
        },
        True,
        _records,
    ),
    View("scores", {**_OF_ROW, "score": Kind.TEXT, "number": Kind.NUMBER, "value": Kind.JSON}, True, _scores),
    View(
        "usage",
        {
            **_OF_ROW,
            "model": Kind.TEXT,
            "judge": Kind.FLAG,
            "batch": Kind.FLAG,
            **_TOKENS,
            "seconds": Kind.NUMBER,
            "waited": Kind.NUMBER,
        },
        True,
        _usage,
    ),
    View(
        "attempts",
        {
            **_OF_ROW,
            "status": Kind.TEXT,
            "prompt": Kind.TEXT,
            "response": Kind.TEXT,
            "error": Kind.TEXT,
            "error_type": Kind.TEXT,
            "error_class": Kind.TEXT,
            "started_at": Kind.MOMENT,
            "seconds": Kind.NUMBER,
            "worker": Kind.TEXT,
        },
        True,
        _attempts,
    ),
    View(
        "calls",
        {
            **_OF_ROW,
            "execution": Kind.TEXT,
            "position": Kind.INTEGER,
            "model": Kind.TEXT,
            "endpoint": Kind.TEXT,
            "source": Kind.TEXT,
            "judge": Kind.FLAG,
            "status": Kind.INTEGER,
            **{name: _TOKENS[name] for name in _TOKENS_OF_CALL},
            "started_at": Kind.MOMENT,
            "seconds": Kind.NUMBER,
            "request": Kind.JSON,
            "reply": Kind.JSON,
            "error": Kind.TEXT,
        },
        True,
        _calls,
    ),
)

"""The views that `doteval query` reads: what their columns are, and where their values come from.

Their names and columns are documented in docs/reading-results.md, and stay: columns may be added, none is renamed or
removed. They hold no URLs, command lines or code.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Text, bindparam, cast, select, tuple_, type_coerce

from doteval.core.experiments import Evaluation
from doteval.core.json_codec import encode, unescape_text
from doteval.core.provenance import Provenance
from doteval.store.flat_results import USAGE_COLUMNS, stored_cell, usage_sums
from doteval.store.result_pages import ResultPage, result_pages
from doteval.store.statements import driver_lines
from doteval.store.store import Store
from doteval.store.tables import ATTEMPT, METRIC_VALUE, SCORE, USAGE, WORKER

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


# Rows of a part: a query for some indexes reads no more than this many others.
_PART_ROWS = 50_000
# Their prompts and responses are in memory together.
_ATTEMPTS_AT_ONCE = 1_000
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
_ROWS = {"rows": Kind.INTEGER, "done": Kind.INTEGER, "failed": Kind.INTEGER, "skipped": Kind.INTEGER}


def parts(evaluations: Sequence[Evaluation]) -> list[Part]:
    """Return the parts of a view that has some, for all evaluations."""
    found = []
    for evaluation in evaluations:
        # All samples: with several of each row, the last parts are empty.
        firsts = list(range(0, max(evaluation.counts.total or 0, 1), _PART_ROWS))
        ends = [*firsts[1:], None]
        found += [Part(evaluation, first, end) for first, end in zip(firsts, ends, strict=True)]
    return found


def _experiments(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    yield _columns(
        {
            "experiment": each.experiment.name,
            "created_at": each.experiment.created_at.timestamp(),
            "active_at": each.active_at.timestamp(),
            "status": each.status and each.status.value,
            "evaluations": each.evaluations,
            "rows": each.counts.total,
            "done": each.counts.done,
            "failed": each.counts.failed,
            "skipped": each.counts.skipped,
            "tags": list(each.labels.tags),
            "note": each.labels.note,
            **_origin(each.begun_by),
        }
        for each in store.experiments.overviews()
    )


def _origin(begun_by: Provenance | None) -> Mapping[str, Any]:
    git = None if begun_by is None else begun_by.git
    return {
        "git_commit": git and git.commit,
        "git_branch": git and git.branch,
        "git_dirty": git and git.dirty,
        "host": begun_by and begun_by.host,
        "user": begun_by and begun_by.user,
    }


def _evaluations(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    yield _columns(
        {
            "experiment": each.experiment.name,
            "evaluation": each.spec.nodeid,
            "status": each.status.value,
            "reason": each.reason,
            "created_at": each.created_at.timestamp(),
            "finished_at": each.finished_at and each.finished_at.timestamp(),
            "rows": each.counts.total,
            "done": each.counts.done,
            "failed": each.counts.failed,
            "skipped": each.counts.skipped,
            "columns": list(each.spec.columns),
            "dataset": each.rows_hash,
        }
        for each in store.evaluations.all()
    )


def _metrics(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    evaluations = {each.id: each for each in store.evaluations.all()}
    stored = store.summaries.stored(evaluations.values())
    query = (
        select(METRIC_VALUE)
        .where(METRIC_VALUE.c.errors_as == "false", METRIC_VALUE.c.metric.is_not(None))
        .order_by(METRIC_VALUE.c.evaluation_id, METRIC_VALUE.c.position)
    )
    with store._database.read() as connection:
        lines = [line for line in connection.execute(query) if line.evaluation_id in stored]
    names = ("score", "metric", "value", "low", "high", "interval_method", "n", "failed", "left_out", "without_failed")
    yield _columns(
        {
            "experiment": evaluations[line.evaluation_id].experiment.name,
            "evaluation": evaluations[line.evaluation_id].spec.nodeid,
            **{name: getattr(line, name) for name in names},
        }
        for line in lines
    )


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
    pages = _pages(store, (), part, usage=(type_coerce(USAGE.c.model, Text), *(USAGE.c[name] for name in numbers)))
    for evaluation, page in pages:
        models, *columns = _unzipped([line for _, line in page.usage], 1 + len(numbers))
        yield {
            **_identity(evaluation, page, [place for place, _ in page.usage]),
            "model": _restored(models),
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


def _workers(store: Store, _: Collection[str], __: Part | None) -> Iterator[Page]:
    stored = store.workers.results()
    yield _columns(
        {
            "worker": f"{each.info.hostname}:{each.info.pid}",
            "service": each.info.service,
            "host": each.info.hostname,
            "pid": each.info.pid,
            "state": each.state.value,
            "queues": list(each.info.queues),
            "device": each.info.device,
            "concurrency": each.info.concurrency,
            "results": stored.get(each.id, 0),
            "started_at": each.started_at.timestamp(),
            "heartbeat_at": each.beat_at.timestamp(),
            "left_at": each.left_at and each.left_at.timestamp(),
            "end_cause": each.end_cause and each.end_cause.value,
            "reason": each.reason,
            "exit_code": each.exit_code,
            "versions": encode(dict(each.info.versions or {})),
        }
        for each in store.workers.all()
    )


VIEWS = (
    View(
        "experiments",
        {
            "experiment": Kind.TEXT,
            "created_at": Kind.MOMENT,
            "active_at": Kind.MOMENT,
            "status": Kind.TEXT,
            "evaluations": Kind.INTEGER,
            **_ROWS,
            "tags": Kind.TEXTS,
            "note": Kind.TEXT,
            "git_commit": Kind.TEXT,
            "git_branch": Kind.TEXT,
            "git_dirty": Kind.FLAG,
            "host": Kind.TEXT,
            "user": Kind.TEXT,
        },
        False,
        _experiments,
    ),
    View(
        "evaluations",
        {
            "experiment": Kind.TEXT,
            "evaluation": Kind.TEXT,
            "status": Kind.TEXT,
            "reason": Kind.TEXT,
            "created_at": Kind.MOMENT,
            "finished_at": Kind.MOMENT,
            **_ROWS,
            "columns": Kind.TEXTS,
            "dataset": Kind.TEXT,
        },
        False,
        _evaluations,
    ),
    View(
        "metrics",
        {
            "experiment": Kind.TEXT,
            "evaluation": Kind.TEXT,
            "score": Kind.TEXT,
            "metric": Kind.TEXT,
            "value": Kind.NUMBER,
            "low": Kind.NUMBER,
            "high": Kind.NUMBER,
            "interval_method": Kind.TEXT,
            "n": Kind.INTEGER,
            "failed": Kind.INTEGER,
            "left_out": Kind.INTEGER,
            "without_failed": Kind.NUMBER,
        },
        False,
        _metrics,
    ),
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
        {**_OF_ROW, "model": Kind.TEXT, **_TOKENS, "seconds": Kind.NUMBER, "waited": Kind.NUMBER},
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
        "workers",
        {
            "worker": Kind.TEXT,
            "service": Kind.TEXT,
            "host": Kind.TEXT,
            "pid": Kind.INTEGER,
            "state": Kind.TEXT,
            "queues": Kind.TEXTS,
            "device": Kind.TEXT,
            "concurrency": Kind.INTEGER,
            "results": Kind.INTEGER,
            "started_at": Kind.MOMENT,
            "heartbeat_at": Kind.MOMENT,
            "left_at": Kind.MOMENT,
            "end_cause": Kind.TEXT,
            "reason": Kind.TEXT,
            "exit_code": Kind.INTEGER,
            "versions": Kind.JSON,
        },
        False,
        _workers,
    ),
)


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


def _columns(lines: Iterator[Mapping[str, Any]]) -> Page:
    columns: dict[str, list[Any]] = defaultdict(list)
    for line in lines:
        for name, value in line.items():
            columns[name].append(value)
    return columns


_SCORE_NAME = type_coerce(SCORE.c.name, Text)

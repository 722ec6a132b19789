"""Writes results: it encodes them as table rows first, and then writes them in one transaction.

This is the hot path of the store, for tens of thousands of results a second.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import isfinite
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ClauseElement,
    ColumnElement,
    CompoundSelect,
    Connection,
    Table,
    Text,
    and_,
    bindparam,
    delete,
    insert,
    null,
    select,
    true,
    type_coerce,
    union_all,
)

from doteval.core.budgets import Spent
from doteval.core.fast_dataclass import row_value
from doteval.core.json_codec import encode, escape_text
from doteval.core.results import Outcome, Row, Usage
from doteval.errors import UnstorableValueError
from doteval.metrics.intervals import as_number
from doteval.store.bulk_insert import BulkInsert, among, among_given, numbers_given
from doteval.store.calls import EncodedCalls, NewCall, write_calls
from doteval.store.counters import add_to_counters, count_spent_again
from doteval.store.engine import Database, insert_into
from doteval.store.statements import Prepared
from doteval.store.tables import ATTEMPT, EVALUATION, RESULT, ROW, SCORE, USAGE


@row_value
class NewResult:
    """The outcome of an execution, to be stored. `execution` names the execution, None for a new name.

    calls: those of its calls that are stored with it.
    """

    evaluation_id: int
    row: Row
    outcome: Outcome
    execution: int | None = None
    calls: tuple[NewCall, ...] = ()


Key = tuple[int, int, int]
Line = tuple[Any, ...]

_KEY = ("evaluation_id", "row_index", "sample")
# The model first, and the latency last.
_USAGE = tuple(Usage.__dataclass_fields__)

_RESULT = (
    *_KEY,
    "status",
    "retry",
    "execution",
    "started_at",
    "seconds",
    "prompt",
    "model_response",
    "extra",
    "error_type",
    "error_message",
    "error_class",
    "traceback",
    "worker_id",
)
_INSERT_RESULT = BulkInsert(RESULT, _RESULT, returning=_KEY)
_INSERT_SCORE = BulkInsert(SCORE, (*_KEY, "position", "name", "metrics", "value", "extra", "number"))
_INSERT_USAGE = BulkInsert(USAGE, (*_KEY, "execution", "position", *_USAGE, "worker_id"))

_usage_values = attrgetter(*_USAGE[1:-1])
# The positions of what was spent in a row of the usage table.
_ATTEMPTS, _PROMPT, _COMPLETION, _COST = (
    _INSERT_USAGE.columns.index(name) for name in ("attempts", "prompt_tokens", "completion_tokens", "cost")
)

_EXISTS = Prepared(lambda _: select(EVALUATION.c.id).where(EVALUATION.c.id == bindparam("evaluation")))


# The stored form of a row's key, which an encoded result has too.
_ROW_KEY = type_coerce(ROW.c.key, Text)


def _rows_and_results(dialect: str) -> CompoundSelect[Any]:
    def those(table: Table) -> ColumnElement[bool]:
        indexes = among_given(dialect, table.c.row_index, bindparam("indexes"))
        return and_(table.c.evaluation_id == bindparam("evaluation"), indexes)

    # No join: without statistics of a new table PostgreSQL would read all results for it.
    return union_all(
        select(ROW.c.row_index, _ROW_KEY.label("key"), null().label("sample"), null().label("retry")).where(those(ROW)),
        select(RESULT.c.row_index, null(), RESULT.c.sample, RESULT.c.retry).where(those(RESULT)),
    )


# For the rows with the given `indexes`: their keys, and then the samples that have a result.
_ROWS_AND_RESULTS = Prepared(_rows_and_results)


def _insert_lone(dialect: str) -> ClauseElement:
    line = select(*(bindparam(name, type_=RESULT.c[name].type) for name in _RESULT)).where(
        ROW.c.evaluation_id == bindparam("evaluation_id"),
        ROW.c.row_index == bindparam("row_index"),
        bindparam("key", type_=Text) == _ROW_KEY,
    )
    into = insert_into(dialect, RESULT).from_select(list(_RESULT), line).on_conflict_do_nothing()
    return into.returning(RESULT.c.row_index)


# Inserts a result if its row exists with this `key` and has none. A result that comes alone needs no query before it.
_INSERT_LONE = Prepared(_insert_lone)


# Not the shared generator: an evaluation that seeds it would give each execution of a row the same name.
_executions = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_executions.seed)


def new_execution() -> int:
    """A new name for an execution of a row. Usage that is written twice under one name counts once."""
    return _executions.getrandbits(63)


@row_value
class EncodedResult:
    """A new result as table rows, which lack only the worker's id."""

    key: Key
    row_key: str
    status: str
    result: Line
    scores: tuple[Line, ...]
    usage: tuple[Line, ...]


def encode_result(new: NewResult) -> EncodedResult:
    """Encode a result as table rows.

    Raises UnstorableValueError: a value cannot be stored. It says which: the prompt, the value of a score, and so on.
    """
    outcome, row, error = new.outcome, new.row, new.outcome.error
    key = (new.evaluation_id, row.index, row.sample)
    execution = new_execution() if new.execution is None else new.execution
    status = outcome.status.value
    result = (
        *key,
        status,
        False,
        execution,
        outcome.started_at,
        outcome.seconds,
        _encoded("the prompt", outcome.prompt),
        _encoded("the model response", outcome.model_response),
        _encoded("the metadata", dict(outcome.metadata)) if outcome.metadata else None,
        *(
            (None, None, None, None)
            if error is None
            else (
                escape_text(error.type),
                escape_text(error.message),
                error.error_class.value,
                escape_text(error.traceback),
            )
        ),
    )
    scores = tuple(
        (
            *key,
            position,
            escape_text(score.name),
            _names(score.metric_names),
            _encoded("the value of a score", score.value) or "null",
            _encoded("the metadata of a score", dict(score.metadata)) if score.metadata else None,
            _number(score.value),
        )
        for position, score in enumerate(outcome.scores)
    )
    return EncodedResult(key, escape_text(row.key), status, result, scores, _usage_lines(key, execution, outcome.usage))


def _usage_lines(key: Key, execution: int, usage: Iterable[Usage], first: int = 0) -> tuple[Line, ...]:
    return tuple(
        (*key, execution, position, escape_text(used.model), *_usage_values(used), used.latency.to_text())
        for position, used in enumerate(usage, start=first)
    )


def write_usage(
    connection: Connection,
    key: Key,
    execution: int | None,
    usage: Iterable[Usage],
    worker_id: int | None,
    *,
    first_position: int = 0,
) -> None:
    """Write the usage of an execution that has no result. If a result came after all, nothing changes."""
    lines = _usage_lines(key, new_execution() if execution is None else execution, usage, first_position)
    spent = _write_usage(connection, key[0], lines, worker_id)
    add_to_counters(connection, key[0], worker_id, Counter(), spent)


def _write_usage(connection: Connection, evaluation_id: int, lines: Sequence[Line], worker_id: int | None) -> Spent:
    """Write usage of an evaluation. Returns what it adds to the spending of the worker process."""
    if not lines:
        return Spent()
    if _INSERT_USAGE.count(connection, [(*line, worker_id) for line in lines]) < len(lines):
        # Some rows exist: an earlier transaction was committed, but the connection was lost before it said so.
        count_spent_again(connection, evaluation_id, worker_id)
        return Spent()
    requests = tokens = unpriced = 0
    cost = 0.0
    for line in lines:
        requests += line[_ATTEMPTS]
        tokens += line[_PROMPT] + line[_COMPLETION]
        if line[_COST] is None:
            unpriced += line[_PROMPT] + line[_COMPLETION]
        else:
            cost += line[_COST]
    return Spent(requests, tokens, cost, unpriced)


def _encoded(what: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        return encode(value)
    except UnstorableValueError as error:
        raise UnstorableValueError(f"{what}: {error.message}", remedy=error.remedy) from None


def _number(value: Any) -> float | None:
    """The value of a score as the number that metrics take it for, None if it is none or not finite."""
    kind = type(value)
    if kind is bool:
        return 1.0 if value else 0.0
    if kind is str:
        return None
    try:
        number = value if kind is float else as_number(value)
    except Exception:  # noqa: BLE001 (values of the author's own types may raise anything)
        return None
    return number if isfinite(number) else None


@lru_cache(maxsize=1000)
def _names(names: tuple[str, ...]) -> str:
    return encode(list(names))


def write_results(
    database: Database,
    connection: Connection,
    results: Sequence[EncodedResult],
    worker_id: int | None,
    calls: EncodedCalls | None = None,
    also: Iterable[int] = (),
) -> int:
    """Write results within a transaction, and calls of any rows; see `StoredResults.write`.

    also: the ids of other evaluations that the transaction is to hold.
    """
    by_evaluation: dict[int, list[EncodedResult]] = defaultdict(list)
    for result in results:
        by_evaluation[result.key[0]].append(result)
    others = calls.evaluations if calls is not None else set()
    database.hold(connection, [*by_evaluation, *others, *also], alone=False)
    if calls is not None:
        write_calls(connection, calls)
    # In order, so that two writers cannot deadlock.
    return sum(
        _write_evaluation(connection, evaluation_id, by_evaluation[evaluation_id], worker_id)
        for evaluation_id in sorted(by_evaluation)
    )


def _write_evaluation(
    connection: Connection,
    evaluation_id: int,
    results: Sequence[EncodedResult],
    worker_id: int | None,
) -> int:
    lines = [line for result in results for line in result.usage]
    if lines and not _EXISTS.run(connection, evaluation=evaluation_id):
        # The evaluation was deleted, so its usage belongs to nothing.
        return 0
    spent = _write_usage(connection, evaluation_id, lines, worker_id)
    kept = _insert_results(connection, evaluation_id, results, worker_id)
    _INSERT_SCORE.run(connection, [score for result in kept for score in result.scores])
    add_to_counters(connection, evaluation_id, worker_id, Counter(result.status for result in kept), spent)
    return len(kept)


def _insert_results(
    connection: Connection, evaluation_id: int, results: Sequence[EncodedResult], worker_id: int | None
) -> Sequence[EncodedResult]:
    """Insert results. Returns those that became the result of their row."""
    if len(results) == 1:
        line = dict(zip(_RESULT, (*results[0].result, worker_id), strict=True))
        if _INSERT_LONE.run(connection, **line, key=results[0].row_key):
            return results
    wanted, known = _wanted(connection, evaluation_id, results)
    retried = _take_retried(connection, evaluation_id, [key for key, retry in known.items() if retry])
    fresh = sorted(key for key in wanted if key not in known or key in retried)
    inserted = _INSERT_RESULT.run(connection, [(*wanted[key].result, worker_id) for key in fresh])
    return [wanted[_key(*columns)] for columns in inserted]


def _key(evaluation_id: int, index: int, sample: int) -> Key:
    return evaluation_id, index, sample


def _wanted(
    connection: Connection, evaluation_id: int, results: Sequence[EncodedResult]
) -> tuple[dict[Key, EncodedResult], dict[Key, bool]]:
    """Find out which results to insert.

    Returns the first result of each row and sample, except those whose row was removed or has other content now; and
    the keys that have a result in the store, with whether that one is to be retried.
    """
    indexes = numbers_given(connection.dialect.name, sorted({result.key[1] for result in results}))
    keys: dict[int, str] = {}
    known: dict[Key, bool] = {}
    for index, key, sample, retry in _ROWS_AND_RESULTS.run(connection, evaluation=evaluation_id, indexes=indexes):
        if key is not None:
            keys[index] = key
        else:
            known[evaluation_id, index, sample] = bool(retry)
    wanted: dict[Key, EncodedResult] = {}
    for result in results:
        if keys.get(result.key[1]) == result.row_key:
            wanted.setdefault(result.key, result)
    return wanted, {key: retry for key, retry in known.items() if key in wanted}


def _take_retried(connection: Connection, evaluation_id: int, keys: Iterable[Key]) -> set[Key]:
    """Move results that are to be retried to the attempts. Returns those that this transaction moved."""
    by_sample: dict[int, list[int]] = defaultdict(list)
    for _, index, sample in keys:
        by_sample[sample].append(index)
    return {
        (evaluation_id, index, sample)
        for sample in sorted(by_sample)
        for index in _take_retried_sample(connection, evaluation_id, sample, by_sample[sample])
    }


def _take_retried_sample(connection: Connection, evaluation_id: int, sample: int, indexes: Sequence[int]) -> list[int]:
    def of(table: Table, indexes: Sequence[int]) -> ColumnElement[bool]:
        return and_(
            table.c.evaluation_id == evaluation_id,
            table.c.sample == sample,
            among(connection, table.c.row_index, indexes),
        )

    # FOR UPDATE, in order, waits for another writer of the same row, and then finds its result gone.
    query = select(RESULT).where(of(RESULT, indexes), RESULT.c.retry == true())
    old = connection.execute(query.order_by(RESULT.c.row_index).with_for_update()).mappings().all()
    if not old:
        return []
    taken = [line["row_index"] for line in old]
    scores: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in connection.execute(select(SCORE).where(of(SCORE, taken)).order_by(SCORE.c.position)):
        score = {"name": line.name, "metrics": line.metrics, "value": line.value, "extra": line.extra}
        scores[line.row_index].append(score)
    attempts = [
        {name: value for name, value in line.items() if name != "retry"} | {"scores": encode(scores[line["row_index"]])}
        for line in old
    ]
    connection.execute(insert(ATTEMPT), attempts)
    for table in (SCORE, RESULT):
        connection.execute(delete(table).where(of(table, taken)))
    return taken

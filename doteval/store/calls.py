"""The call journal in the store: writes the calls of rows, finds those to replay, and drops them."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    Integer,
    LargeBinary,
    Select,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    literal_column,
    null,
    or_,
    select,
    tuple_,
    update,
)

from doteval.core.call_bodies import CallBody, pack, restored, unpack
from doteval.core.call_journal import CallSource, FinishedCall, RecordedCall
from doteval.core.fast_dataclass import row_value
from doteval.core.json_codec import escape_text
from doteval.core.results import Usage
from doteval.store.batch_tables import WANTED_CALL
from doteval.store.bulk_insert import BulkInsert
from doteval.store.engine import Database
from doteval.store.experiments import moment
from doteval.store.statements import Prepared
from doteval.store.tables import ATTEMPT, CALL, EVALUATION, RESULT, USAGE

_COLUMNS = tuple(CALL.c.keys())
# Calls that are read at once: their bodies may have megabytes.
_PAGE_CALLS = 100
_PAGE_CALLS_WITHOUT_BODIES = 2_000
_INSERT = BulkInsert(CALL, _COLUMNS)
_EXISTS = Prepared(lambda _: select(EVALUATION.c.id).where(EVALUATION.c.id == bindparam("evaluation")))
_KEY = ("evaluation_id", "row_index", "sample", "execution", "position")
# A replayed call belongs to the execution that a result came of, once it has one.
_MOVED = ("execution", "position", "source", "judge", "started_at", "seconds")
_MOVE = Prepared(
    lambda _: (
        update(CALL)
        .where(*(CALL.c[name] == bindparam(f"old_{name}") for name in _KEY))
        .values({name: bindparam(f"new_{name}") for name in _MOVED})
    )
)
_MOVE_USAGE = Prepared(
    lambda _: (
        update(USAGE)
        .where(*(USAGE.c[name] == bindparam(f"old_{name}") for name in _KEY))
        .values(execution=bindparam("new_execution"), position=bindparam("new_position"))
    )
)
USAGE_OF_CALLS = 1_000_000
"""The position of the usage of a call that a batch has answered is this and the call's, apart from that of rows."""
# The usage of an earlier execution comes behind that of the execution that replays its replies.
_MOST_OF_ONE_EXECUTION = 1_000


def _move_earlier(_: str) -> Update:
    def of(table: FromClause, execution: str) -> tuple[ColumnElement[bool], ...]:
        names = ("evaluation_id", "row_index", "sample")
        # That of batches moves call by call.
        of_rows = table.c.position < literal_column(str(USAGE_OF_CALLS))
        return (
            *(table.c[name] == bindparam(name) for name in names),
            table.c.execution == bindparam(execution),
            of_rows,
        )

    there = USAGE.alias()
    last = select(func.max(there.c.position)).where(*of(there, "new_execution")).scalar_subquery()
    behind = func.coalesce(last, literal_column("0")) + literal_column(str(_MOST_OF_ONE_EXECUTION))
    position = USAGE.c.position + behind
    return (
        update(USAGE).where(*of(USAGE, "old_execution")).values(execution=bindparam("new_execution"), position=position)
    )


_MOVE_EARLIER = Prepared(_move_earlier)


@row_value
class NewCall:
    """A call of a row, to be stored."""

    evaluation_id: int
    row_index: int
    sample: int
    execution: int
    call: FinishedCall


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call in the store. `body` is None where only its usage was kept."""

    sample: int
    execution: int
    position: int
    source: CallSource
    status: int
    started_at: datetime
    seconds: float
    usage: Usage
    body: CallBody | None


@dataclass(frozen=True, slots=True)
class EncodedCalls:
    """Calls as table rows: those to insert, and the parameters of replayed ones, which are there already."""

    new: list[tuple[Any, ...]]
    moved: list[dict[str, Any]]

    @property
    def evaluations(self) -> set[int]:
        """The ids of their evaluations."""
        return {line[0] for line in self.new} | {each["old_evaluation_id"] for each in self.moved}


def encode_calls(calls: Iterable[NewCall]) -> EncodedCalls:
    """Pack the bodies of calls, and make table rows of them."""
    new: list[tuple[Any, ...]] = []
    moved: list[dict[str, Any]] = []
    for each in calls:
        call = each.call
        where = (each.evaluation_id, each.row_index, each.sample)
        if call.replayed is not None:
            old = dict(zip(_KEY, (*where, *call.replayed), strict=True))
            values = (each.execution, call.position, call.source.value, call.judge, call.started_at, call.seconds)
            moved.append(
                {f"old_{name}": value for name, value in old.items()}
                | {f"new_{name}": value for name, value in zip(_MOVED, values, strict=True)}
            )
            continue
        used = call.usage or _NO_USAGE
        is_kept = call.request or call.reply or call.error or call.endpoint
        body = CallBody(call.endpoint, call.content_type, call.error, call.request, call.reply)
        new.append(
            (
                *where,
                each.execution,
                call.position,
                call.digest,
                call.source.value,
                call.judge,
                escape_text(call.model),
                call.status,
                call.started_at,
                call.seconds,
                used.prompt_tokens,
                used.completion_tokens,
                used.cached_tokens,
                used.reasoning_tokens,
                used.cost,
                pack(body, call.base) if is_kept else None,
            )
        )
    return EncodedCalls(new, moved)


_NO_USAGE = Usage("")


def write_calls(connection: Connection, calls: EncodedCalls) -> None:
    """Write calls within a transaction that holds their evaluations. Calls of deleted evaluations are dropped."""
    known = {each for each in calls.evaluations if _EXISTS.run(connection, evaluation=each)}
    _INSERT.count(connection, [line for line in calls.new if line[0] in known])
    earlier: dict[tuple[int, ...], None] = {}
    for each in calls.moved:
        _MOVE.run(connection, **each)
        if each["new_source"] == CallSource.BATCH:
            old, new = USAGE_OF_CALLS + each["old_position"], USAGE_OF_CALLS + each["new_position"]
            _MOVE_USAGE.run(connection, **{**each, "old_position": old, "new_position": new})
        elif each["old_execution"] != each["new_execution"]:
            executions = (each["old_execution"], each["new_execution"])
            earlier[each["old_evaluation_id"], each["old_row_index"], each["old_sample"], *executions] = None
    for key in earlier:
        # It got replies that the result came of, so what it has used is a part of what the result took.
        names = ("evaluation_id", "row_index", "sample", "old_execution", "new_execution")
        _MOVE_EARLIER.run(connection, **dict(zip(names, key, strict=True)))


_IS_ROWS_RESULT = and_(
    RESULT.c.evaluation_id == CALL.c.evaluation_id,
    RESULT.c.row_index == CALL.c.row_index,
    RESULT.c.sample == CALL.c.sample,
)


_IS_ATTEMPT = and_(
    ATTEMPT.c.evaluation_id == CALL.c.evaluation_id,
    ATTEMPT.c.row_index == CALL.c.row_index,
    ATTEMPT.c.sample == CALL.c.sample,
    ATTEMPT.c.execution == CALL.c.execution,
)


def _range(table: Table) -> ColumnElement[bool]:
    return table.c.row_index.between(bindparam("first"), bindparam("last"))


def _of_rows(table: Table) -> tuple[ColumnElement[bool], ...]:
    return table.c.evaluation_id == bindparam("evaluation"), _range(table)


def _of_uid(table: Table) -> tuple[ColumnElement[bool], ...]:
    found = select(EVALUATION.c.id).where(EVALUATION.c.uid == bindparam("uid")).scalar_subquery()
    return (table.c.evaluation_id == found,)


def _are_last(
    of_results: Sequence[ColumnElement[bool]] = (), of_attempts: Sequence[ColumnElement[bool]] = ()
) -> tuple[ColumnElement[bool], ...]:
    """The conditions for the calls that a row's result came of; of a row without one, of executions that were lost."""
    return (
        ~exists().where(_IS_ROWS_RESULT, *of_results, RESULT.c.execution != CALL.c.execution),
        ~exists().where(_IS_ATTEMPT, *of_attempts),
    )


def _replayable(has_result: ColumnElement[bool], *conditions: ColumnElement[bool]) -> Select[Any]:
    return (
        select(
            CALL.c.row_index,
            CALL.c.sample,
            CALL.c.digest,
            CALL.c.execution,
            CALL.c.position,
            CALL.c.status,
            CALL.c.body,
            CALL.c.source,
            CALL.c.started_at,
            has_result.label("has_result"),
        )
        .where(
            or_(
                CALL.c.status.between(literal_column("200"), literal_column("299")),
                # The error of a batch is its answer: it was asked again as often as it may be.
                CALL.c.source == bindparam("batch", type_=Text),
            ),
            CALL.c.digest != bindparam("none", type_=LargeBinary),
            *conditions,
        )
        .order_by(CALL.c.row_index, CALL.c.sample, CALL.c.started_at, CALL.c.position)
    )


def _unfinished(dialect: str) -> Select[Any]:
    # Without statistics of a new table, PostgreSQL would scan all results unless the range is given for them too.
    # SQLite looks each row up, and would scan the range if it were given.
    of_results = () if dialect == "sqlite" else _of_rows(RESULT)
    of_attempts = () if dialect == "sqlite" else _of_rows(ATTEMPT)
    return _replayable(
        exists().where(_IS_ROWS_RESULT, *of_results, RESULT.c.execution == CALL.c.execution),
        *_of_rows(CALL),
        # An execution that ended has a result, or had one that a retry has replaced since.
        ~exists().where(
            _IS_ROWS_RESULT,
            *of_results,
            or_(
                RESULT.c.retry == false(),
                and_(
                    RESULT.c.execution == CALL.c.execution,
                    bindparam("replay", type_=Integer) == literal_column("0"),
                ),
            ),
        ),
        ~exists().where(_IS_ATTEMPT, *of_attempts),
    )


def _recorded(dialect: str) -> Select[Any]:
    of_results = () if dialect == "sqlite" else (*_of_uid(RESULT), _range(RESULT))
    of_attempts = () if dialect == "sqlite" else (*_of_uid(ATTEMPT), _range(ATTEMPT))
    return _replayable(false(), *_of_uid(CALL), _range(CALL), *_are_last(of_results, of_attempts))


# Built once: worker processes run them for every row task.
_UNFINISHED = Prepared(_unfinished)
_RECORDED = Prepared(_recorded)


class Calls:
    """Reads and drops the calls of rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def unfinished(
        self, evaluation_id: int, first: int, last: int, *, failed: bool = False
    ) -> Mapping[tuple[int, int], Sequence[RecordedCall]]:
        """The calls whose replies pending rows from `first` to `last` (included) may replay, by index and sample.

        They are those of executions that did not end, because the process died.

        failed: also those of failed results that are to be replaced.
        """
        with self._database.read() as connection:
            lines = _UNFINISHED.run(
                connection,
                evaluation=evaluation_id,
                first=first,
                last=last,
                none=b"",
                replay=int(failed),
                batch=CallSource.BATCH.value,
            )
        return _by_row(lines)

    def recorded(self, uid: str, first: int, last: int) -> Mapping[tuple[int, int], Sequence[RecordedCall]]:
        """The calls of rows from `first` to `last` (included) that a rescoring replays, by index and sample.

        They are those that the results came of. uid: of their evaluation; without it in the store there are none.
        """
        with self._database.read() as connection:
            within = {"first": first, "last": last, "none": b"", "batch": CallSource.BATCH.value}
            return _by_row(_RECORDED.run(connection, uid=uid, **within), foreign=True)

    def of_row(self, evaluation_id: int, index: int, *, last: bool = False) -> list[StoredCall]:
        """The calls of a row, by sample and by when their executions began, in the order in which they began.

        last: only those that its result came of.
        """
        query = (
            select(CALL)
            .where(CALL.c.evaluation_id == evaluation_id, CALL.c.row_index == index, *(_are_last() if last else ()))
            .order_by(CALL.c.sample, CALL.c.position)
        )
        with self._database.read() as connection:
            lines = connection.execute(query).all()
        began: dict[int, float] = {}
        for line in lines:
            began[line.execution] = min(line.started_at, began.get(line.execution, line.started_at))
        lines = sorted(lines, key=lambda line: (line.sample, began[line.execution], line.execution, line.position))
        return _stored(lines)

    def stream(
        self, evaluation_id: int, within: tuple[int, int | None] = (0, None), *, bodies: bool = True
    ) -> Iterator[tuple[int, StoredCall]]:
        """All calls of an evaluation with the index of their row, by row, sample and execution.

        Memory is bounded by a page of calls and those of one row, and no query stays open between pages.

        within: the first row index, and the one after the last, None for all that follow.
        bodies: whether requests and replies are read.
        """
        lines = self._lines(evaluation_id, within, bodies=bodies)
        for index, of_row in itertools.groupby(lines, key=lambda line: int(line.row_index)):
            for call in _stored(list(of_row)):
                yield index, call

    def _lines(self, evaluation_id: int, within: tuple[int, int | None], *, bodies: bool) -> Iterator[Any]:
        at_once = _PAGE_CALLS if bodies else _PAGE_CALLS_WITHOUT_BODIES
        key = tuple_(CALL.c.row_index, CALL.c.sample, CALL.c.execution, CALL.c.position)
        first, end = within
        read = CALL.c if bodies else [null().label("body") if each is CALL.c.body else each for each in CALL.c]
        query = select(*read).where(CALL.c.evaluation_id == evaluation_id, CALL.c.row_index >= first)
        if end is not None:
            query = query.where(CALL.c.row_index < end)
        query = query.order_by(*key.clauses).limit(at_once)
        after: tuple[int, ...] | None = None
        while True:
            page = query if after is None else query.where(key > after)
            with self._database.read() as connection:
                lines = connection.execute(page).all()
            yield from lines
            if len(lines) < at_once:
                return
            last = lines[-1]
            after = (last.row_index, last.sample, last.execution, last.position)

    def note_repaid(self, evaluation_id: int, rows: int) -> None:
        """Note that so many rows asked something else when they ran again, and so paid for calls again."""
        with self._database.write() as connection:
            count = EVALUATION.c.repaid_rows + rows
            connection.execute(update(EVALUATION).where(EVALUATION.c.id == evaluation_id).values(repaid_rows=count))

    def count(self, evaluation_ids: Sequence[int]) -> int:
        """How many calls of evaluations are stored."""
        query = select(func.count()).select_from(CALL).where(CALL.c.evaluation_id.in_(evaluation_ids))
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    def were_dropped(self, evaluation_id: int) -> bool:
        """Whether rows of an evaluation have sent requests, and no call of them is stored."""
        kept = select(CALL.c.evaluation_id).where(CALL.c.evaluation_id == evaluation_id).limit(1)
        sent = select(USAGE.c.evaluation_id).where(
            USAGE.c.evaluation_id == evaluation_id, USAGE.c.row_index >= 0, USAGE.c.requests > 0
        )
        with self._database.read() as connection:
            return connection.scalar(kept) is None and connection.scalar(sent.limit(1)) is not None

    def drop(self, evaluation_id: int) -> int:
        """Delete the calls of an evaluation. Returns how many there were."""
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=True)
            # A call whose reply is gone may be wanted again.
            answered = (WANTED_CALL.c.evaluation_id == evaluation_id, WANTED_CALL.c.answered_at.is_not(None))
            connection.execute(delete(WANTED_CALL).where(*answered))
            return connection.execute(delete(CALL).where(CALL.c.evaluation_id == evaluation_id)).rowcount


def _by_row(lines: Iterable[Any], *, foreign: bool = False) -> dict[tuple[int, int], list[RecordedCall]]:
    found: dict[tuple[int, int], list[RecordedCall]] = defaultdict(list)
    for index, sample, digest, execution, position, status, body, source, started_at, has_result in lines:
        call = RecordedCall(
            bytes(digest),
            execution,
            position,
            status,
            bytes(body),
            foreign,
            CallSource(source),
            started_at,
            bool(has_result),
        )
        found[index, sample].append(call)
    return found


def _stored(lines: Sequence[Any]) -> list[StoredCall]:
    """The calls of one row."""
    packed = [(bytes(line.digest), unpack(bytes(line.body))) for line in lines if line.body is not None]
    bodies = iter(restored(packed))
    return [_stored_call(line, None if line.body is None else next(bodies)) for line in lines]


def _stored_call(line: Any, body: CallBody | None) -> StoredCall:
    usage = Usage(
        line.model,
        prompt_tokens=line.prompt_tokens,
        completion_tokens=line.completion_tokens,
        cached_tokens=line.cached_tokens,
        reasoning_tokens=line.reasoning_tokens,
        cost=line.cost,
        judge=line.judge,
        batch=line.source == CallSource.BATCH,
    )
    return StoredCall(
        sample=line.sample,
        execution=line.execution,
        position=line.position,
        source=CallSource(line.source),
        status=line.status,
        started_at=moment(line.started_at),
        seconds=line.seconds,
        usage=usage,
        body=body,
    )

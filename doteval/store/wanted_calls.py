"""Wanted calls in the store: what rows in batch mode wait for. A row waits while one of its calls is not answered."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, select, true, tuple_, update

from doteval.core.call_bodies import CallBody, pack
from doteval.core.call_journal import CallSource
from doteval.core.fast_dataclass import row_value
from doteval.core.json_codec import escape_text
from doteval.core.parking import WantedCall
from doteval.core.results import Usage
from doteval.store.batch_tables import WANTED_CALL
from doteval.store.bulk_insert import BulkInsert, among
from doteval.store.calls import USAGE_OF_CALLS, NewCall
from doteval.store.engine import Database, database_time
from doteval.store.result_rows import new_execution, write_usage
from doteval.store.statements import Prepared
from doteval.store.tables import CALL, EVALUATION, RESULT

_INSERT = BulkInsert(
    WANTED_CALL,
    (
        *("evaluation_id", "row_index", "sample", "digest", "nth", "position", "client", "endpoint", "model", "body"),
        *("size", "tokens", "inputs", "judge", "wanted_at", "tries", "live"),
    ),
)
_INSERT_CALL = BulkInsert(CALL, tuple(CALL.c.keys()))
_NOW = Prepared(lambda _: select(database_time()))
_EXISTS = Prepared(lambda _: select(EVALUATION.c.id).where(EVALUATION.c.id == bindparam("evaluation")))
_PAGE = 1000
_OPEN = WANTED_CALL.c.answered_at.is_(None)
_WITHIN = (
    WANTED_CALL.c.evaluation_id == bindparam("evaluation"),
    WANTED_CALL.c.row_index.between(bindparam("first"), bindparam("last")),
)
_WAITING = Prepared(lambda _: select(WANTED_CALL.c.row_index, WANTED_CALL.c.sample).where(*_WITHIN, _OPEN).distinct())
_LIVE = Prepared(
    lambda _: select(WANTED_CALL.c.row_index, WANTED_CALL.c.sample, WANTED_CALL.c.digest, WANTED_CALL.c.nth).where(
        *_WITHIN, WANTED_CALL.c.live == true()
    )
)
_WAITING_ROWS = select(func.count()).select_from(
    select(WANTED_CALL.c.row_index, WANTED_CALL.c.sample)
    .where(WANTED_CALL.c.evaluation_id == bindparam("evaluation"), _OPEN)
    .distinct()
    .subquery()
)
_WAITING_WITHIN = select(func.count()).select_from(
    select(WANTED_CALL.c.row_index, WANTED_CALL.c.sample).where(*_WITHIN, _OPEN).distinct().subquery()
)


@row_value
class ParkedRow:
    """An execution of a row that ended because it waits, to be stored.

    usage: what its fixtures have used. calls: those of its calls that are stored with it.
    """

    evaluation_id: int
    row_index: int
    sample: int
    execution: int
    wanted: tuple[WantedCall, ...]
    usage: tuple[Usage, ...] = ()
    calls: tuple[NewCall, ...] = ()


@row_value
class BatchReply:
    """The reply to a wanted call, by its id.

    status: its HTTP status. content: its body. usage: what it cost, None if nothing is known to be paid.
    """

    wanted_id: int
    status: int
    content: bytes
    usage: Usage | None = None
    error: str = ""


def write_parked(connection: Connection, rows: Iterable[ParkedRow], worker_id: int | None) -> None:
    """Write what rows want within a transaction that holds their evaluations. What is wanted already stays."""
    (now,) = _NOW.run(connection)[0]
    known: dict[int, bool] = {}
    lines: list[tuple[Any, ...]] = []
    for row in rows:
        if row.evaluation_id not in known:
            known[row.evaluation_id] = bool(_EXISTS.run(connection, evaluation=row.evaluation_id))
        if not known[row.evaluation_id]:
            continue
        lines += (
            (
                *(row.evaluation_id, row.row_index, row.sample, call.digest, call.nth, call.position),
                *(call.client, call.endpoint, escape_text(call.model), zlib.compress(call.body, 1)),
                *(len(call.body), call.tokens, call.inputs, call.judge, now, 0, False),
            )
            for call in row.wanted
        )
        if row.usage:
            key = (row.evaluation_id, row.row_index, row.sample)
            write_usage(connection, key, row.execution, row.usage, worker_id)
    _INSERT.run(connection, lines)


def waiting_rows(connection: Connection, evaluation_id: int, first: int, last: int) -> set[tuple[int, int]]:
    """The rows that wait, as index and sample, from index `first` to `last` (included)."""
    return {(line[0], line[1]) for line in _WAITING.run(connection, evaluation=evaluation_id, first=first, last=last)}


def count_waiting(connection: Connection, evaluation_id: int, first: int, last: int) -> int:
    """The number of rows that wait from index `first` to `last` (included); samples count."""
    within = {"evaluation": evaluation_id, "first": first, "last": last}
    return int(connection.scalar(_WAITING_WITHIN, within) or 0)


def forget_retried(connection: Connection, evaluation_id: int, conditions: Sequence[ColumnElement[bool]]) -> None:
    """Forget what rows wanted whose results, by conditions, are to be replaced; they want it anew.

    Replies that they may replay stay in the journal, but errors of batches do not.
    """
    rows = select(RESULT.c.row_index, RESULT.c.sample).where(*conditions)
    is_error = and_(CALL.c.source == CallSource.BATCH.value, ~CALL.c.status.between(200, 299))
    for table, more in ((WANTED_CALL, ()), (CALL, (is_error,))):
        mine = tuple_(table.c.row_index, table.c.sample).in_(rows)
        connection.execute(delete(table).where(table.c.evaluation_id == evaluation_id, mine, *more))


class WantedCalls:
    """Reads and answers the calls that rows wait for."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, evaluation_id: int) -> int:
        """How many rows of an evaluation wait; each sample counts."""
        with self._database.read() as connection:
            return int(connection.scalar(_WAITING_ROWS, {"evaluation": evaluation_id}) or 0)

    def live(self, evaluation_id: int, first: int, last: int) -> Mapping[tuple[int, int], set[tuple[bytes, int]]]:
        """The calls that rows from `first` to `last` (included) are to send themselves, by index and sample."""
        with self._database.read() as connection:
            lines = _LIVE.run(connection, evaluation=evaluation_id, first=first, last=last)
        found: dict[tuple[int, int], set[tuple[bytes, int]]] = defaultdict(set)
        for index, sample, digest, nth in lines:
            found[index, sample].add((bytes(digest), nth))
        return found

    def bodies(self, batch_id: int) -> Iterator[tuple[int, bytes]]:
        """The ids and bodies of the calls of a batch that are not answered, in the order in which they were wanted."""
        after = 0
        while True:
            query = (
                select(WANTED_CALL.c.id, WANTED_CALL.c.body)
                .where(WANTED_CALL.c.batch_id == batch_id, _OPEN, WANTED_CALL.c.id > after)
                .order_by(WANTED_CALL.c.id)
                .limit(_PAGE)
            )
            with self._database.read() as connection:
                page = connection.execute(query).all()
            for line in page:
                yield line.id, zlib.decompress(line.body)
            if len(page) < _PAGE:
                return
            after = page[-1].id

    def unanswered(self, batch_id: int) -> dict[int, int]:
        """The calls of a batch that are not answered: by id, how many batches before have not answered them."""
        query = select(WANTED_CALL.c.id, WANTED_CALL.c.tries).where(WANTED_CALL.c.batch_id == batch_id, _OPEN)
        with self._database.read() as connection:
            return {line.id: line.tries for line in connection.execute(query)}

    def answer(self, evaluation_id: int, replies: Sequence[BatchReply], worker_id: int | None) -> list[tuple[int, int]]:
        """Store replies as calls of the journal, with their usage. Those to calls that are answered are dropped.

        Returns the rows that wait for nothing more, as index and sample.
        """
        by_id = {each.wanted_id: each for each in replies}
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            # Only one process gets to set each of them.
            mine = (
                WANTED_CALL.c.evaluation_id == evaluation_id,
                among(connection, WANTED_CALL.c.id, by_id),
                _OPEN,
            )
            found = select(WANTED_CALL).where(*mine).with_for_update()
            lines = connection.execute(found).all()
            if not lines:
                return []
            ids = [line.id for line in lines]
            connection.execute(
                update(WANTED_CALL)
                .where(among(connection, WANTED_CALL.c.id, ids))
                .values(answered_at=database_time(), body=None, batch_id=None)
            )
            (now,) = _NOW.run(connection)[0]
            calls = []
            for line in lines:
                reply = by_id[line.id]
                execution = new_execution()
                calls.append(_call_line(line, reply, execution, now))
                if reply.usage is not None:
                    key = (evaluation_id, line.row_index, line.sample)
                    first = USAGE_OF_CALLS + line.position
                    used = replace(reply.usage, judge=line.judge)
                    write_usage(connection, key, execution, [used], worker_id, first_position=first)
            _INSERT_CALL.count(connection, calls)
            return _woken(connection, evaluation_id, lines)

    def send_live(self, evaluation_id: int, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Have rows send calls themselves. Returns the rows that wait for nothing more, as index and sample."""
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            mine = (among(connection, WANTED_CALL.c.id, ids), _OPEN)
            lines = connection.execute(select(WANTED_CALL).where(*mine).with_for_update()).all()
            connection.execute(
                update(WANTED_CALL)
                .where(among(connection, WANTED_CALL.c.id, [line.id for line in lines]))
                .values(answered_at=database_time(), body=None, batch_id=None, live=True)
            )
            return _woken(connection, evaluation_id, lines)

    def release(self, ids: Iterable[int], error: str, *, counts: bool = True) -> None:
        """Take calls out of their batch, so that they come into another. counts: whether that was a try."""
        with self._database.write() as connection:
            connection.execute(
                update(WANTED_CALL)
                .where(among(connection, WANTED_CALL.c.id, ids), _OPEN)
                .values(batch_id=None, tries=WANTED_CALL.c.tries + int(counts), last_error=error)
            )

    def overdue(self, evaluation_id: int, client: str, seconds: float) -> list[int]:
        """The calls in no batch that a client has wanted for longer than so many seconds."""
        query = select(WANTED_CALL.c.id).where(
            WANTED_CALL.c.evaluation_id == evaluation_id,
            WANTED_CALL.c.client == client,
            WANTED_CALL.c.batch_id.is_(None),
            WANTED_CALL.c.wanted_at < database_time() - seconds,
            _OPEN,
        )
        with self._database.read() as connection:
            return list(connection.scalars(query))

    def row_of_client(self, evaluation_id: int, client: str) -> int | None:
        """The index of a row that waits for a call of a client, None if none does."""
        query = (
            select(WANTED_CALL.c.row_index)
            .where(WANTED_CALL.c.evaluation_id == evaluation_id, WANTED_CALL.c.client == client, _OPEN)
            .limit(1)
        )
        with self._database.read() as connection:
            found = connection.scalar(query)
        return None if found is None else int(found)


def _call_line(line: Any, reply: BatchReply, execution: int, now: float) -> tuple[Any, ...]:
    """A reply as a row of the table of calls. Each has an execution of its own until its row replays it."""
    used = reply.usage or Usage("")
    request = zlib.decompress(line.body)
    body = CallBody(line.endpoint, "application/json", reply.error, request, reply.content)
    return (
        *(line.evaluation_id, line.row_index, line.sample, execution, line.position),
        *(bytes(line.digest), CallSource.BATCH.value, line.judge, escape_text(line.model), reply.status),
        *(line.wanted_at, max(0.0, now - line.wanted_at)),
        *(used.prompt_tokens, used.completion_tokens, used.cached_tokens, used.reasoning_tokens, used.cost),
        pack(body),
    )


def _woken(connection: Connection, evaluation_id: int, lines: Sequence[Any]) -> list[tuple[int, int]]:
    rows = {(line.row_index, line.sample) for line in lines}
    if not rows:
        return []
    query = select(WANTED_CALL.c.row_index, WANTED_CALL.c.sample).where(
        WANTED_CALL.c.evaluation_id == evaluation_id,
        among(connection, WANTED_CALL.c.row_index, {index for index, _ in rows}),
        _OPEN,
    )
    return sorted(rows - {(line.row_index, line.sample) for line in connection.execute(query)})

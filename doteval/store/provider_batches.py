"""Batches in the store, which are written before anything is sent; and who sends those of a client."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, and_, delete, exists, false, func, insert, select, update

from doteval.core.batches import BatchProgress, BatchStatus, ProviderBatch
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.parking import BYTES_PER_TOKEN
from doteval.core.process_identity import new_token
from doteval.store.batch_tables import BATCH_LEASE, PROVIDER_BATCH, WANTED_CALL
from doteval.store.bulk_insert import among
from doteval.store.engine import Database, database_time, insert_into
from doteval.store.tables import EVALUATION, RESULT

_OPEN = PROVIDER_BATCH.c.ended_at.is_(None)
_UNANSWERED = WANTED_CALL.c.answered_at.is_(None)
_UNSENT = and_(_UNANSWERED, WANTED_CALL.c.batch_id.is_(None))
_HAS_RESULT = exists().where(
    RESULT.c.evaluation_id == WANTED_CALL.c.evaluation_id,
    RESULT.c.row_index == WANTED_CALL.c.row_index,
    RESULT.c.sample == WANTED_CALL.c.sample,
    RESULT.c.retry == false(),
)


@dataclass(frozen=True, slots=True)
class WantedGroup:
    """Calls in no batch yet that can be in one together.

    size: bytes of their bodies. age: seconds since the oldest was wanted.
    """

    endpoint: str
    model: str
    requests: int
    size: int
    age: float


@dataclass(frozen=True, slots=True)
class BatchCapacity:
    """The most that one batch may hold. size: bytes of its file. overhead: bytes around each body.

    tokens: of prompts and replies. queue: the most tokens of prompts in all batches at once, of which `enqueued` are in
    others; None for any number.
    """

    requests: int
    size: int
    inputs: int
    tokens: int | None = None
    overhead: int = 0
    queue: int | None = None
    enqueued: int = 0


def prompt_tokens(size: Any) -> Any:
    """An estimate of the tokens of a prompt from the bytes of its request, a number or an expression in SQL."""
    return size // BYTES_PER_TOKEN + 1


class ProviderBatches:
    """Reads and writes the batches of evaluations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def groups(self, evaluation_id: int, client: str) -> list[WantedGroup]:
        """The calls of a client that are in no batch, by endpoint and model."""
        query = (
            select(
                WANTED_CALL.c.endpoint,
                WANTED_CALL.c.model,
                func.count().label("requests"),
                func.sum(WANTED_CALL.c.size).label("size"),
                (database_time() - func.min(WANTED_CALL.c.wanted_at)).label("age"),
            )
            .where(WANTED_CALL.c.evaluation_id == evaluation_id, WANTED_CALL.c.client == client, _UNSENT)
            .group_by(WANTED_CALL.c.endpoint, WANTED_CALL.c.model)
        )
        with self._database.read() as connection:
            lines = connection.execute(query).all()
        return [WantedGroup(line.endpoint, line.model, line.requests, int(line.size), line.age) for line in lines]

    def reserve(
        self, evaluation_id: int, client: str, group: WantedGroup, limits: BatchCapacity
    ) -> ProviderBatch | None:
        """Choose the calls of a new batch, the oldest first. None if there are none.

        Calls of rows that have a result meanwhile are forgotten.
        """
        mine = (
            WANTED_CALL.c.evaluation_id == evaluation_id,
            WANTED_CALL.c.client == client,
            WANTED_CALL.c.endpoint == group.endpoint,
            WANTED_CALL.c.model == group.model,
            _UNSENT,
        )
        query = (
            select(WANTED_CALL.c.id, WANTED_CALL.c.size, WANTED_CALL.c.tokens, WANTED_CALL.c.inputs)
            .where(*mine)
            .order_by(WANTED_CALL.c.id)
            .limit(limits.requests)
            .with_for_update()
        )
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            connection.execute(delete(WANTED_CALL).where(*mine, _HAS_RESULT))
            chosen: list[int] = []
            size = tokens = inputs = 0
            enqueued = limits.enqueued
            for line in connection.execute(query):
                size, inputs = size + line.size + limits.overhead, inputs + line.inputs
                enqueued += prompt_tokens(line.size)
                over = size > limits.size or inputs > limits.inputs
                over = over or (limits.tokens is not None and tokens + line.tokens > limits.tokens)
                is_full = limits.queue is not None and enqueued > limits.queue
                # One that is too large is refused by the provider, which says why.
                if (over and chosen) or (is_full and (chosen or limits.enqueued)):
                    break
                tokens += line.tokens
                chosen.append(line.id)
            if not chosen:
                return None
            values = {
                "evaluation_id": evaluation_id,
                "client": client,
                "endpoint": group.endpoint,
                "model": group.model,
                "token": new_token(),
                "requests": len(chosen),
                "answered": 0,
                "tokens": tokens,
                "reserved_at": database_time(),
                "status": BatchStatus.RESERVED.value,
            }
            made = connection.execute(insert(PROVIDER_BATCH).values(values).returning(PROVIDER_BATCH.c.id))
            batch_id = int(made.scalar_one())
            connection.execute(
                update(WANTED_CALL).where(among(connection, WANTED_CALL.c.id, chosen)).values(batch_id=batch_id)
            )
            return _batch(connection.execute(_query().where(PROVIDER_BATCH.c.id == batch_id)).one())

    def open(self, evaluation_id: int, client: str | None = None) -> list[ProviderBatch]:
        """The batches of an evaluation that have not ended, the oldest first; those of one client, if it is named."""
        query = _query().where(PROVIDER_BATCH.c.evaluation_id == evaluation_id, _OPEN).order_by(PROVIDER_BATCH.c.id)
        if client is not None:
            query = query.where(PROVIDER_BATCH.c.client == client)
        with self._database.read() as connection:
            return [_batch(line) for line in connection.execute(query)]

    def record(self, batch_id: int, **values: Any) -> None:
        """Record what is known of a batch: columns of its table. `ended` and `sent` set the moment."""
        for name in ("sent", "ended"):
            if values.pop(name, False):
                values[f"{name}_at"] = database_time()
        with self._database.write() as connection:
            connection.execute(update(PROVIDER_BATCH).where(PROVIDER_BATCH.c.id == batch_id).values(**values))

    def add_cost(self, batch_id: int, cost: float) -> None:
        """Add to what the replies of a batch have cost, in US dollars."""
        total = func.coalesce(PROVIDER_BATCH.c.cost, 0.0) + cost
        with self._database.write() as connection:
            connection.execute(update(PROVIDER_BATCH).where(PROVIDER_BATCH.c.id == batch_id).values(cost=total))

    def cancel(self, evaluation_ids: Sequence[int], why: str) -> int:
        """Have the open batches of evaluations cancelled at the provider. Returns how many there are."""
        mine = (PROVIDER_BATCH.c.evaluation_id.in_(evaluation_ids), _OPEN, PROVIDER_BATCH.c.cancelled.is_(None))
        with self._database.write() as connection:
            return connection.execute(update(PROVIDER_BATCH).where(*mine).values(cancelled=why)).rowcount

    def enqueued(self, model: str) -> int:
        """An estimate of the tokens of prompts that the open batches of a model hold, of all experiments."""
        query = (
            select(func.coalesce(func.sum(prompt_tokens(WANTED_CALL.c.size)), 0))
            .join(PROVIDER_BATCH, PROVIDER_BATCH.c.id == WANTED_CALL.c.batch_id)
            .where(_OPEN, PROVIDER_BATCH.c.model == model, _UNANSWERED)
        )
        with self._database.read() as connection:
            return int(connection.scalar(query) or 0)

    def begin_again(self, evaluation_id: int) -> None:
        """An ended evaluation goes on: its rows want unsent calls anew, and wait for the others from now on."""
        self.drop_unsent(evaluation_id)
        mine = (WANTED_CALL.c.evaluation_id == evaluation_id, _UNANSWERED)
        with self._database.write() as connection:
            connection.execute(update(WANTED_CALL).where(*mine).values(wanted_at=database_time()))

    def drop_unsent(self, evaluation_id: int) -> None:
        """Forget the calls that rows of an evaluation want and that are in no batch. The rows are pending again."""
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation_id], alone=False)
            mine = WANTED_CALL.c.evaluation_id == evaluation_id
            connection.execute(delete(WANTED_CALL).where(mine, _UNSENT))

    def clients(self, evaluation_id: int) -> dict[str, int | None]:
        """The clients of an evaluation that have something to do, with the worker process that does it, if any."""
        wanted = select(WANTED_CALL.c.client).where(WANTED_CALL.c.evaluation_id == evaluation_id, _UNANSWERED)
        batches = select(PROVIDER_BATCH.c.client).where(PROVIDER_BATCH.c.evaluation_id == evaluation_id, _OPEN)
        leases = select(BATCH_LEASE.c.client, BATCH_LEASE.c.worker_id).where(
            BATCH_LEASE.c.evaluation_id == evaluation_id
        )
        with self._database.read() as connection:
            clients = {*connection.scalars(wanted.distinct()), *connection.scalars(batches.distinct())}
            holders = {line.client: line.worker_id for line in connection.execute(leases)}
        return {client: holders.get(client) for client in sorted(clients)}

    def lease(self, evaluation_id: int, client: str, worker_id: int, live: Collection[int]) -> bool:
        """Have a worker process send and poll the batches of a client. False if another one that lives does so.

        live: the ids of the worker processes that live.
        """
        mine = (BATCH_LEASE.c.evaluation_id == evaluation_id, BATCH_LEASE.c.client == client)
        values = {"evaluation_id": evaluation_id, "client": client, "worker_id": worker_id}
        with self._database.write() as connection:
            made = insert_into(self._database.dialect, BATCH_LEASE).values(values).on_conflict_do_nothing()
            if connection.execute(made).rowcount > 0:
                return True
            holder = connection.scalar(select(BATCH_LEASE.c.worker_id).where(*mine))
            if holder == worker_id:
                return True
            if holder in live:
                return False
            taken = update(BATCH_LEASE).where(*mine, BATCH_LEASE.c.worker_id == holder).values(worker_id=worker_id)
            return connection.execute(taken).rowcount > 0

    def with_open(self) -> list[int]:
        """The ids of the evaluations with batches that have not ended."""
        with self._database.read() as connection:
            return list(connection.scalars(select(PROVIDER_BATCH.c.evaluation_id).where(_OPEN).distinct()))

    def progress(self, evaluation_ids: Collection[int]) -> BatchProgress:
        """How far the batches of evaluations are."""
        of_batches = PROVIDER_BATCH.c.evaluation_id.in_(evaluation_ids)
        totals = select(
            func.count(),
            func.coalesce(func.sum(PROVIDER_BATCH.c.requests), 0),
            func.coalesce(func.sum(PROVIDER_BATCH.c.answered), 0),
            database_time() - func.min(PROVIDER_BATCH.c.reserved_at),
        ).where(of_batches, _OPEN)
        errors = select(PROVIDER_BATCH.c.error).where(of_batches, _OPEN, PROVIDER_BATCH.c.error.is_not(None))
        # Its calls wait for the next one: why is this not sent?
        last = (
            select(PROVIDER_BATCH.c.status, PROVIDER_BATCH.c.error)
            .where(of_batches)
            .order_by(PROVIDER_BATCH.c.id.desc())
            .limit(1)
        )
        wanted = select(WANTED_CALL.c.evaluation_id, WANTED_CALL.c.row_index, WANTED_CALL.c.sample).where(
            WANTED_CALL.c.evaluation_id.in_(evaluation_ids), _UNANSWERED
        )
        unsent = select(func.count()).where(WANTED_CALL.c.evaluation_id.in_(evaluation_ids), _UNSENT)
        with self._database.read() as connection:
            batches, requests, answered, oldest = connection.execute(totals).one()
            waiting = connection.scalar(select(func.count()).select_from(wanted.distinct().subquery()))
            calls = int(connection.scalar(unsent) or 0)
            said = set(connection.scalars(errors.distinct()))
            if calls:
                ended = connection.execute(last).first()
                if ended is not None and ended.status == BatchStatus.FAILED and ended.error:
                    said.add(ended.error)
            return BatchProgress(
                waiting=int(waiting or 0),
                unsent=calls,
                batches=int(batches),
                requests=int(requests),
                answered=int(answered),
                oldest=None if oldest is None else float(oldest),
                errors=tuple(sorted(said)),
            )

    def progress_of(self, evaluations: Iterable[Evaluation]) -> dict[int, BatchProgress]:
        """How far the batches of those evaluations are that run in batch mode, by id."""
        in_batches = [each.id for each in evaluations if each.config.batch and each.status is EvaluationStatus.RUNNING]
        return {each: self.progress([each]) for each in in_batches}

    def reserved(self, experiment_id: int) -> tuple[int, int]:
        """How many requests of an experiment are in open batches and not answered, and an estimate of their tokens."""
        query = (
            select(func.count(), func.coalesce(func.sum(WANTED_CALL.c.tokens), 0))
            .join(EVALUATION, EVALUATION.c.id == WANTED_CALL.c.evaluation_id)
            .where(EVALUATION.c.experiment_id == experiment_id, _UNANSWERED, WANTED_CALL.c.batch_id.is_not(None))
        )
        with self._database.read() as connection:
            requests, tokens = connection.execute(query).one()
        return int(requests), int(tokens)


_COLUMNS = (
    *("id", "evaluation_id", "client", "endpoint", "model", "token", "provider_id", "requests", "answered", "status"),
    *("cancelled", "error"),
)


def _query() -> Select[Any]:
    age = database_time() - PROVIDER_BATCH.c.reserved_at
    return select(*(PROVIDER_BATCH.c[name] for name in _COLUMNS), age.label("age"))


def _batch(line: Any) -> ProviderBatch:
    values = {name: getattr(line, name) for name in _COLUMNS}
    return ProviderBatch(**{**values, "status": BatchStatus(line.status)}, age=float(line.age))

"""Worker processes in the store: who they are, whether they live, what they hold."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, insert, select, update

from doteval.core.experiments import Evaluation
from doteval.core.json_codec import decode, encode
from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store.engine import Database, database_time
from doteval.store.experiments import moment
from doteval.store.rows import RowRange
from doteval.store.tables import WORKER

# The greatest index that a row may have.
LAST_INDEX = (1 << 40) - 1


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker process says of itself.

    `concurrency` is its rows in flight at most; `device` what its CUDA_VISIBLE_DEVICES says, None if it is not set.
    """

    service: str
    hostname: str
    pid: int
    queues: tuple[str, ...] = ()
    concurrency: int = 1
    versions: Mapping[str, str] | dict[str, Any] | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class HeldRange:
    """Rows that a worker process has taken from the queue and not finished: `first` to `last`, both included."""

    evaluation_uid: str
    first: int
    last: int

    @classmethod
    def whole(cls, evaluation_uid: str) -> HeldRange:
        """All rows of an evaluation, however many it will have: of a process that runs them by itself."""
        return cls(evaluation_uid, 0, LAST_INDEX)

    @property
    def rows(self) -> int:
        """How many these are; 0 where that is all of an evaluation, which nobody has counted."""
        return 0 if self.last == LAST_INDEX else self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker process as the store knows it.

    `age` is the time since it was last heard of, in seconds by the database's clock; `clock_offset` is how many
    seconds its own clock is ahead of that one, None before its first beat. `end_cause` is how it ended, `reason` says
    so to people, and `exit_code` is what its supervisor saw: -9 after SIGKILL.
    """

    id: int
    info: WorkerInfo
    state: WorkerPhase
    started_at: datetime
    beat_at: datetime
    left_at: datetime | None
    reason: str | None
    holding: tuple[HeldRange, ...]
    age: float
    clock_offset: float | None = None
    end_cause: WorkerEnd | None = None
    exit_code: int | None = None


def held_by(workers: Iterable[WorkerState], evaluation_uid: str) -> list[RowRange]:
    """The rows of an evaluation that worker processes hold, in order; ranges may overlap."""
    held = (each for worker in workers for each in worker.holding if each.evaluation_uid == evaluation_uid)
    return sorted((RowRange(each.first, each.last) for each in held), key=lambda each: (each.first, each.last))


class Workers:
    """Worker processes and their heartbeats."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, info: WorkerInfo) -> int:
        """Register a worker process, as loading. Returns its id."""
        line = {
            "service": info.service,
            "hostname": info.hostname,
            "pid": info.pid,
            "queues": encode(list(info.queues)),
            "device": info.device,
            "concurrency": info.concurrency,
            "versions": encode(dict(info.versions or {})),
            "state": WorkerPhase.LOADING.value,
            "holding": "[]",
            "started_at": database_time(),
            "beat_at": database_time(),
        }
        with self._database.write() as connection:
            return int(connection.execute(insert(WORKER).values(line).returning(WORKER.c.id)).scalar_one())

    def beat(self, worker_id: int, *, state: WorkerPhase, holding: Sequence[HeldRange]) -> None:
        """Say that the worker process lives, what it is doing, and which rows it holds."""
        held = _encoded(holding)
        with self._database.write() as connection:
            # Our clock is read when the transaction has begun, for which SQLite may let us wait.
            connection.execute(_BEAT, {"worker": worker_id, "says": str(state), "holds": held, "now": time.time()})

    def claim(
        self, worker_id: int, evaluation: Evaluation, *, is_gone: Callable[[WorkerState], bool]
    ) -> WorkerState | None:
        """Have a worker process hold all rows of an evaluation, unless another holds some.

        Of two that ask at the same moment one gets it. Returns the other, None if there is none. One that `is_gone`
        holds nothing, whatever it said.
        """
        mine = HeldRange.whole(evaluation.uid)
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation.id], alone=True)
            others = [
                worker for worker in _found(connection, _LIVE, max_age=DEAD_AFTER_SECONDS) if worker.id != worker_id
            ]
            for other in others:
                if any(held.evaluation_uid == evaluation.uid for held in other.holding) and not is_gone(other):
                    return other
            connection.execute(
                update(WORKER).where(WORKER.c.id == worker_id).values(holding=_encoded([mine]), beat_at=database_time())
            )
        return None

    def end(self, worker_id: int, cause: WorkerEnd = WorkerEnd.LEFT, *, reason: str) -> None:
        """Say that the worker process leaves. It holds nothing any more; the first cause and reason stay."""
        with self._database.write() as connection:
            connection.execute(_leaving(cause, reason).where(WORKER.c.id == worker_id))

    def end_process(
        self, hostname: str, pid: int, cause: WorkerEnd, *, reason: str, exit_code: int | None = None
    ) -> int | None:
        """Say that the process of that id on that host is gone: for its supervisor. Returns the worker's id.

        None if no worker of that process is known to live.
        """
        with self._database.write() as connection:
            ended = connection.execute(
                _leaving(cause, reason, exit_code)
                .where(WORKER.c.hostname == hostname, WORKER.c.pid == pid)
                .returning(WORKER.c.id)
            ).all()
        return max((int(line.id) for line in ended), default=None)

    def live(self, max_age: float = DEAD_AFTER_SECONDS) -> list[WorkerState]:
        """The worker processes that have not left and were heard of in the last `max_age` seconds."""
        with self._database.read() as connection:
            return _found(connection, _LIVE, max_age=max_age)

    def all(self) -> list[WorkerState]:
        """All worker processes that ever were, in the order in which they began."""
        with self._database.read() as connection:
            return _found(connection, _ALL)


def _found(connection: Connection, query: Select[Any], **parameters: float) -> list[WorkerState]:
    return [_state(line) for line in connection.execute(query, parameters)]


# Made once: while rows run, these are asked for several times a second.
_AGE = database_time() - WORKER.c.beat_at
_ALL = select(*WORKER.c, _AGE.label("age")).order_by(WORKER.c.id)
_LIVE = _ALL.where(WORKER.c.left_at.is_(None), bindparam("max_age", type_=WORKER.c.beat_at.type) >= _AGE)
_BEAT = (
    update(WORKER)
    .where(WORKER.c.id == bindparam("worker"), WORKER.c.left_at.is_(None))
    .values(
        state=bindparam("says"),
        holding=bindparam("holds"),
        beat_at=database_time(),
        clock_offset=bindparam("now", type_=WORKER.c.clock_offset.type) - database_time(),
    )
)


def _encoded(holding: Sequence[HeldRange]) -> str:
    return encode([[part.evaluation_uid, part.first, part.last] for part in holding])


def _leaving(cause: WorkerEnd, reason: str, exit_code: int | None = None) -> Any:
    return (
        update(WORKER)
        .where(WORKER.c.left_at.is_(None))
        .values(
            state=WorkerPhase.LEFT.value,
            left_at=database_time(),
            end_cause=cause.value,
            reason=reason,
            exit_code=exit_code,
            holding="[]",
        )
    )


def _state(line: Row[*tuple[Any, ...]]) -> WorkerState:
    return WorkerState(
        id=line.id,
        info=WorkerInfo(
            line.service,
            line.hostname,
            line.pid,
            tuple(decode(line.queues)),
            line.concurrency,
            decode(line.versions),
            line.device,
        ),
        state=WorkerPhase(line.state),
        started_at=moment(line.started_at),
        beat_at=moment(line.beat_at),
        left_at=None if line.left_at is None else moment(line.left_at),
        reason=line.reason,
        end_cause=None if line.end_cause is None else WorkerEnd(line.end_cause),
        exit_code=line.exit_code,
        holding=tuple(HeldRange(*part) for part in decode(line.holding)),
        age=max(0.0, line.age),
        clock_offset=line.clock_offset,
    )

"""Records worker processes: what they are, their heartbeats, and the rows that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, insert, select, update

from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.json_codec import decode, encode
from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store.engine import Database, database_time
from doteval.store.experiments import moment
from doteval.store.rows import RowRange
from doteval.store.tables import WORKER

# The largest index of a row.
LAST_INDEX = (1 << 40) - 1


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The description that a worker process gives of itself.

    concurrency: its maximum of rows in flight.
    device: its CUDA_VISIBLE_DEVICES, None if that is not set.
    """

    service: str
    hostname: str
    pid: int
    queues: tuple[str, ...] = ()
    concurrency: int = 1
    versions: Mapping[str, str] | dict[str, Any] | None = None
    device: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerCode:
    """The evaluation files that a worker process has read.

    root: pytest's root directory on its machine
    files: the hash of each file by its path below the root directory
    reloads: whether it reads changed files by itself, when it has no rows to run; else it has to be restarted
    """

    root: str
    files: Mapping[str, str]
    reloads: bool


@dataclass(frozen=True, slots=True)
class HeldRange:
    """Rows `first` to `last` (included) that a worker process has received and not finished."""

    evaluation_uid: str
    first: int
    last: int

    @classmethod
    def whole(cls, evaluation_uid: str) -> HeldRange:
        """All rows of an evaluation, for a process that runs them without a queue."""
        return cls(evaluation_uid, 0, LAST_INDEX)

    @property
    def rows(self) -> int:
        """The number of rows; 0 for a whole evaluation, whose rows are not counted."""
        return 0 if self.last == LAST_INDEX else self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker process as the store knows it.

    age: seconds since its last heartbeat, by the database's clock.
    broker_silence: seconds for which its broker has not answered it, None while it answers.
    clock_offset: seconds by which its clock is ahead of the database's, None before its first heartbeat.
    end_cause: how it ended; `reason` says so to people.
    exit_code: as its supervisor saw it, -9 after SIGKILL; None if no supervisor did.
    code: None until it has read its evaluation files.
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
    code: WorkerCode | None = None
    broker_silence: float | None = None


def held_by(workers: Iterable[WorkerState], evaluation_uid: str) -> list[RowRange]:
    """The rows of an evaluation that worker processes hold, in order. The ranges may overlap."""
    held = (each for worker in workers for each in worker.holding if each.evaluation_uid == evaluation_uid)
    return sorted((RowRange(each.first, each.last) for each in held), key=lambda each: (each.first, each.last))


class Workers:
    """Reads and writes worker processes and their heartbeats."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, info: WorkerInfo, *, state: WorkerPhase = WorkerPhase.LOADING) -> int:
        """Register a worker process that is loading, or a submitter. Returns its id."""
        line = {
            "service": info.service,
            "hostname": info.hostname,
            "pid": info.pid,
            "queues": encode(list(info.queues)),
            "device": info.device,
            "concurrency": info.concurrency,
            "versions": encode(dict(info.versions or {})),
            "state": state.value,
            "holding": "[]",
            "started_at": database_time(),
            "beat_at": database_time(),
        }
        with self._database.write() as connection:
            return int(connection.execute(insert(WORKER).values(line).returning(WORKER.c.id)).scalar_one())

    def beat(
        self,
        worker_id: int,
        *,
        state: WorkerPhase,
        holding: Sequence[HeldRange],
        broker_silence: float | None = None,
    ) -> None:
        """Store a heartbeat with the state of the worker process and the rows that it holds.

        broker_silence: seconds for which the broker has not answered it, None while it answers.
        """
        said = {"worker": worker_id, "says": str(state), "holds": _encoded(holding), "silence": broker_silence}
        with self._database.write() as connection:
            # The clock is read after the transaction has begun, since that may have to wait on SQLite.
            connection.execute(_BEAT, {**said, "now": clocks.now()})

    def has_read(self, worker_id: int, code: WorkerCode) -> None:
        """Record the evaluation files that a worker process has read."""
        stored = encode([code.root, dict(code.files), code.reloads])
        with self._database.write() as connection:
            connection.execute(update(WORKER).where(WORKER.c.id == worker_id).values(code=stored))

    def claim(
        self, worker_id: int, evaluation: Evaluation, *, is_gone: Callable[[WorkerState], bool]
    ) -> WorkerState | None:
        """Claim all rows of an evaluation for a worker process, unless another process holds some.

        Of two processes that ask at the same moment, one gets the claim.

        is_gone: whether a process that looks alive has ended in fact, so that its rows are free.

        Returns the other process, None if the claim succeeded.
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
        """Record that a worker process leaves and holds no rows any more. The first cause and reason stay."""
        with self._database.write() as connection:
            connection.execute(_leaving(cause, reason).where(WORKER.c.id == worker_id))

    def end_process(
        self, hostname: str, pid: int, cause: WorkerEnd, *, reason: str, exit_code: int | None = None
    ) -> int | None:
        """Record that the process `pid` of a host has ended, as its supervisor saw it.

        Returns the worker's id, None if no live worker process has this pid.
        """
        with self._database.write() as connection:
            ended = connection.execute(
                _leaving(cause, reason, exit_code)
                .where(WORKER.c.hostname == hostname, WORKER.c.pid == pid)
                .returning(WORKER.c.id)
            ).all()
        return max((int(line.id) for line in ended), default=None)

    def live(self, max_age: float = DEAD_AFTER_SECONDS) -> list[WorkerState]:
        """The worker processes that have not left and sent a heartbeat in the last `max_age` seconds."""
        with self._database.read() as connection:
            return _found(connection, _LIVE, max_age=max_age)

    def submitters(self, max_age: float = DEAD_AFTER_SECONDS) -> list[WorkerState]:
        """The commands that submit or follow evaluations, which they name as held, and live as `live` says."""
        with self._database.read() as connection:
            return _found(connection, _SUBMITTERS, max_age=max_age)

    def all(self) -> list[WorkerState]:
        """All worker processes ever, in the order in which they began."""
        with self._database.read() as connection:
            return _found(connection, _ALL)


def _found(connection: Connection, query: Select[Any], **parameters: float) -> list[WorkerState]:
    return [_state(line) for line in connection.execute(query, parameters)]


# Built once: these run several times a second while rows run.
_AGE = database_time() - WORKER.c.beat_at
_SILENCE = database_time() - WORKER.c.broker_silent_since
_EVERY = select(*WORKER.c, _AGE.label("age"), _SILENCE.label("broker_silence")).order_by(WORKER.c.id)
_ALL = _EVERY.where(WORKER.c.state != WorkerPhase.SUBMITTING.value)
_FRESH = (WORKER.c.left_at.is_(None), bindparam("max_age", type_=WORKER.c.beat_at.type) >= _AGE)
_LIVE = _ALL.where(*_FRESH)
_SUBMITTERS = _EVERY.where(WORKER.c.state == WorkerPhase.SUBMITTING.value, *_FRESH)
_BEAT = (
    update(WORKER)
    .where(WORKER.c.id == bindparam("worker"), WORKER.c.left_at.is_(None))
    .values(
        state=bindparam("says"),
        holding=bindparam("holds"),
        beat_at=database_time(),
        broker_silent_since=database_time() - bindparam("silence", type_=WORKER.c.broker_silent_since.type),
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
            # Their phase distinguishes commands from worker processes, also when they have left.
            state=case((WORKER.c.state == WorkerPhase.SUBMITTING.value, WORKER.c.state), else_=WorkerPhase.LEFT.value),
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
        code=None if line.code is None else WorkerCode(*decode(line.code)),
        broker_silence=line.broker_silence,
    )

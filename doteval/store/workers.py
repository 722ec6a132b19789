"""Records worker processes: what they are, their heartbeats, and the rows that they hold."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, Text, bindparam, case, func, insert, or_, select, update

from doteval.core import clocks
from doteval.core.experiments import Evaluation
from doteval.core.json_codec import decode, encode
from doteval.core.liveness import DEAD_AFTER_SECONDS, LATE_AFTER_SECONDS
from doteval.core.process_identity import new_token, pid_space
from doteval.core.states import WorkerEnd, WorkerPhase
from doteval.store.bulk_insert import among
from doteval.store.engine import Database, database_time
from doteval.store.experiments import moment
from doteval.store.heartbeat_ages import Beat, HeartbeatAges
from doteval.store.rows import RowRange
from doteval.store.tables import COUNTERS, WORKER

# The largest index of a row.
LAST_INDEX = (1 << 40) - 1


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """The description that a worker process gives of itself.

    service, hostname, pid: for people; other processes may have the same.
    concurrency: its maximum of rows in flight.
    device: its CUDA_VISIBLE_DEVICES, None if that is not set.
    supervisor: the token of the supervisor that started it, None without one.
    pid_space: where its pid means something, None if that is not known.
    """

    service: str
    hostname: str
    pid: int
    queues: tuple[str, ...] = ()
    concurrency: int = 1
    versions: Mapping[str, str] | dict[str, Any] | None = None
    device: str | None = None
    supervisor: str | None = None
    pid_space: str | None = None

    @property
    def place(self) -> tuple[str | None, str]:
        """What it has in common with its predecessor and its successor, and with no other process."""
        return self.supervisor, self.service

    @classmethod
    def of_this_process(cls, service: str, **facts: Any) -> WorkerInfo:
        """The description of this process; `facts` are further fields."""
        return cls(service, socket.gethostname(), os.getpid(), pid_space=pid_space(), **facts)


@dataclass(frozen=True, slots=True)
class WorkerCode:
    """The evaluation files that a worker process has read.

    root: pytest's root directory on its machine
    files: the hash of each file by its path below the root directory
    reloads: whether it reads changed files as soon as it has no rows to run; else it has to be restarted
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

    age: seconds since its last heartbeat, as `HeartbeatAges` judges them.
    watched: for how many seconds this process has seen no heartbeat after that one.
    token: its identity, None for a process of a release that had none.
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
    token: str | None = None
    watched: float = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether it is dead by its last heartbeat, and no later one came while this process watched.

        The first look alone proves nothing in the moment after the database's clock was set forward.
        """
        return self.age > DEAD_AFTER_SECONDS and self.watched >= LATE_AFTER_SECONDS


def held_by(workers: Iterable[WorkerState], evaluation_uid: str) -> list[RowRange]:
    """The rows of an evaluation that worker processes hold, in order. The ranges may overlap."""
    held = (each for worker in workers for each in worker.holding if each.evaluation_uid == evaluation_uid)
    return sorted((RowRange(each.first, each.last) for each in held), key=lambda each: (each.first, each.last))


class Workers:
    """Reads and writes worker processes and their heartbeats."""

    def __init__(self, database: Database) -> None:
        self._database = database
        # Worker processes and submitters are looked at on their own.
        self._ages = HeartbeatAges()
        self._submitters_ages = HeartbeatAges()

    def begin(self, info: WorkerInfo, *, state: WorkerPhase = WorkerPhase.LOADING, token: str | None = None) -> int:
        """Register a worker process that is loading, or a submitter. Returns its id.

        token: its identity, None to make one.
        """
        with self._database.write() as connection:
            return _insert(connection, info, token or new_token(), state, ())

    def beat(
        self,
        worker_id: int,
        *,
        state: WorkerPhase,
        holding: Sequence[HeldRange],
        broker_silence: float | None = None,
        token: str | None = None,
    ) -> bool:
        """Store a heartbeat with the state of the worker process and the rows that it holds.

        broker_silence: seconds for which the broker has not answered it, None while it answers.
        token: the identity that it has registered with, None not to look at it.

        Returns False if the process counts as dead: its end was recorded, or the id is not its own, since a backup of
        the store was restored.
        """
        said = {"worker": worker_id, "says": str(state), "holds": _encoded(holding), "silence": broker_silence}
        beat, said = (_BEAT, said) if token is None else (_OWN_BEAT, {**said, "own": token})
        with self._database.write() as connection:
            # The clock is read after the transaction has begun, since that may have to wait on SQLite.
            return connection.execute(beat, {**said, "now": clocks.now()}).rowcount > 0

    def renew(
        self,
        worker_id: int,
        token: str,
        info: WorkerInfo,
        *,
        new: str,
        state: WorkerPhase,
        holding: Sequence[HeldRange],
    ) -> tuple[int, str | None]:
        """Register a process anew that lives although its end was recorded. It keeps its id, if that is its own still.

        token, new: its identity until now, and from now on.

        Returns its id, and the reason that was recorded.
        """
        mine = (WORKER.c.id == worker_id, WORKER.c.token == token)
        alive = {
            "token": new,
            "state": state.value,
            "holding": _encoded(holding),
            "beat_at": database_time(),
            **dict.fromkeys(("left_at", "reason", "end_cause", "exit_code")),
        }
        with self._database.write() as connection:
            line = connection.execute(select(WORKER.c.reason).where(*mine)).one_or_none()
            if line is None:
                return _insert(connection, info, new, state, holding), None
            connection.execute(update(WORKER).where(*mine).values(alive))
        return worker_id, line.reason

    def has_read(self, worker_id: int, code: WorkerCode) -> None:
        """Record the evaluation files that a worker process has read."""
        stored = encode([code.root, dict(code.files), code.reloads])
        with self._database.write() as connection:
            connection.execute(update(WORKER).where(WORKER.c.id == worker_id).values(code=stored))

    def claim(
        self, worker_id: int, evaluation: Evaluation, *, is_gone: Callable[[WorkerState], bool]
    ) -> WorkerState | None:
        """Claim all rows of an evaluation for a worker process, unless another process holds some.

        Of two processes that ask at the same moment, one gets the claim. Processes that held rows and are dead are
        recorded as lost, so that one of them that comes back knows that its rows are another's.

        is_gone: whether a process that looks alive has ended in fact, so that its rows are free.

        Returns the other process, None if the claim succeeded.
        """
        mine = HeldRange.whole(evaluation.uid)
        with self._database.write() as connection:
            self._database.hold(connection, [evaluation.id], alone=True)
            holders = [
                worker
                for worker in self._look(connection, _LIVE_OR_HOLDING, self._ages, evaluation=evaluation.uid)
                if worker.id != worker_id and any(held.evaluation_uid == evaluation.uid for held in worker.holding)
            ]
            dead = [worker for worker in holders if worker.is_silent or is_gone(worker)]
            living = [worker for worker in holders if worker not in dead]
            if living:
                return living[0]
            for each in dead:
                why = "sent no heartbeat" if each.is_silent else "was killed, or ended without recording why"
                reason = f"{why}, and another process took its rows over"
                connection.execute(_leaving(WorkerEnd.LOST, reason).where(WORKER.c.id == each.id))
            connection.execute(
                update(WORKER).where(WORKER.c.id == worker_id).values(holding=_encoded([mine]), beat_at=database_time())
            )
        return None

    def end(self, worker_id: int, cause: WorkerEnd = WorkerEnd.LEFT, *, reason: str) -> None:
        """Record that a worker process leaves and holds no rows any more. The first cause and reason stay."""
        with self._database.write() as connection:
            connection.execute(_leaving(cause, reason).where(WORKER.c.id == worker_id))

    def end_process(
        self, tokens: Collection[str], cause: WorkerEnd, *, reason: str, exit_code: int | None = None
    ) -> int | None:
        """Record that a process has ended, as its supervisor saw it.

        tokens: those under which it has registered, or was about to.

        Returns the worker's id, None if no live worker process has such a token.
        """
        with self._database.write() as connection:
            ended = connection.execute(
                _leaving(cause, reason, exit_code).where(WORKER.c.token.in_(tokens)).returning(WORKER.c.id)
            ).all()
        return max((int(line.id) for line in ended), default=None)

    def id_of(self, tokens: Collection[str]) -> int | None:
        """The id of the process that has registered under one of these tokens, None if there is none."""
        with self._database.read() as connection:
            found: int | None = connection.scalar(select(func.max(WORKER.c.id)).where(WORKER.c.token.in_(tokens)))
            return found

    def live(self, max_age: float = DEAD_AFTER_SECONDS) -> list[WorkerState]:
        """The worker processes that have not left and sent a heartbeat in the last `max_age` seconds."""
        with self._database.read() as connection:
            found = self._look(connection, _LIVE, self._ages, max_age)
        return [worker for worker in found if worker.age <= max_age]

    def submitters(self, max_age: float = DEAD_AFTER_SECONDS) -> list[WorkerState]:
        """The commands that submit or follow evaluations, which they name as held, and live as `live` says."""
        with self._database.read() as connection:
            found = self._look(connection, _SUBMITTERS, self._submitters_ages, max_age)
        return [submitter for submitter in found if submitter.age <= max_age]

    def all(self) -> list[WorkerState]:
        """All worker processes ever, in the order in which they began."""
        with self._database.read() as connection:
            return [_state(line, self._ages) for line in connection.execute(_ALL)]

    def results(self) -> dict[int, int]:
        """The number of results that each worker process has stored, those that were replaced since included."""
        count = func.sum(COUNTERS.c.done + COUNTERS.c.failed + COUNTERS.c.skipped)
        query = select(COUNTERS.c.worker_id, count).group_by(COUNTERS.c.worker_id)
        with self._database.read() as connection:
            return {worker_id: int(number) for worker_id, number in connection.execute(query)}

    def _look(
        self,
        connection: Connection,
        query: Select[Any],
        ages: HeartbeatAges,
        max_age: float = DEAD_AFTER_SECONDS,
        **parameters: str,
    ) -> list[WorkerState]:
        """The processes that a query finds, with those that lived at the last look and still may."""
        began = ages.now()
        lines = list(connection.execute(query, {"max_age": max_age, **parameters}))
        # Once the database's clock was set forward, the query finds nobody until the next heartbeat.
        missing = ages.younger_than(max_age) - {line.id for line in lines}
        if missing:
            lines += connection.execute(_PRESENT.where(among(connection, WORKER.c.id, missing)))
            ages.forget(missing - {line.id for line in lines})
        ages.look((_beat(line) for line in lines), began=began)
        return sorted((_state(line, ages) for line in lines), key=lambda worker: worker.id)


# Built once: these run several times a second while rows run.
_AGE = database_time() - WORKER.c.beat_at
_SILENCE = database_time() - WORKER.c.broker_silent_since
_EVERY = select(*WORKER.c, _AGE.label("age"), _SILENCE.label("broker_silence")).order_by(WORKER.c.id)
_ALL = _EVERY.where(WORKER.c.state != WorkerPhase.SUBMITTING.value)
_HERE = WORKER.c.left_at.is_(None)
_PRESENT = _EVERY.where(_HERE)
_FRESH = bindparam("max_age", type_=WORKER.c.beat_at.type) >= _AGE
_LIVE = _ALL.where(_HERE, _FRESH)
_LIVE_OR_HOLDING = _ALL.where(_HERE, or_(_FRESH, WORKER.c.holding.contains(bindparam("evaluation", type_=Text))))
_SUBMITTERS = _EVERY.where(WORKER.c.state == WorkerPhase.SUBMITTING.value, _HERE, _FRESH)
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
_OWN_BEAT = _BEAT.where(WORKER.c.token == bindparam("own"))


def _insert(
    connection: Connection, info: WorkerInfo, token: str, state: WorkerPhase, holding: Sequence[HeldRange]
) -> int:
    line = {
        "service": info.service,
        "hostname": info.hostname,
        "pid": info.pid,
        "queues": encode(list(info.queues)),
        "device": info.device,
        "concurrency": info.concurrency,
        "versions": encode(dict(info.versions or {})),
        "state": state.value,
        "holding": _encoded(holding),
        "started_at": database_time(),
        "beat_at": database_time(),
        "token": token,
        "supervisor": info.supervisor,
        "pid_space": info.pid_space,
    }
    return int(connection.execute(insert(WORKER).values(line).returning(WORKER.c.id)).scalar_one())


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


def _beat(line: Row[*tuple[Any, ...]]) -> Beat:
    return Beat(line.id, line.beat_at, line.age)


def _state(line: Row[*tuple[Any, ...]], ages: HeartbeatAges) -> WorkerState:
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
            line.supervisor,
            line.pid_space,
        ),
        state=WorkerPhase(line.state),
        started_at=moment(line.started_at),
        beat_at=moment(line.beat_at),
        left_at=None if line.left_at is None else moment(line.left_at),
        reason=line.reason,
        end_cause=None if line.end_cause is None else WorkerEnd(line.end_cause),
        exit_code=line.exit_code,
        holding=tuple(HeldRange(*part) for part in decode(line.holding)),
        age=ages.age_of(_beat(line)),
        clock_offset=line.clock_offset,
        code=None if line.code is None else WorkerCode(*decode(line.code)),
        broker_silence=line.broker_silence,
        token=line.token,
        watched=ages.watched(_beat(line)),
    )

"""The tables of worker processes and of the fixtures that they set up."""

from __future__ import annotations

from sqlalchemy import BigInteger, Index, Text
from sqlmodel import Field, SQLModel

from doteval.store.column_types import SafeText, table_of


class WorkerTable(SQLModel, table=True):
    """One worker process with its last heartbeat.

    clock_offset: seconds by which its clock was ahead of the database's at that heartbeat.
    code: the files that it has read, see `doteval.store.workers.WorkerCode`; None until then.
    broker_silent_since: when its broker last answered, by the database's clock, if that was too long ago.
    token: its identity; None for a process of a release before schema version 0015.
    supervisor: the token of its supervisor, None without one.
    pid_space: where its pid means something; see `doteval.core.process_identity`.
    service: the name of its service.
    hostname: the machine that it runs on.
    pid: its process id there.
    queues: JSON, the queues that it serves.
    device: its CUDA_VISIBLE_DEVICES.
    concurrency: rows in flight at most.
    versions: JSON, of python and of packages.
    state: loading, ready, draining, submitting or left.
    holding: JSON, the row tasks that it has taken and not acknowledged.
    beat_at: its last heartbeat, by the database's clock.
    left_at: when it ended, None while it is there.
    reason: why it ended, for people.
    end_cause: the same as a word.
    exit_code: that of the process, negative for a signal.
    """

    __tablename__ = "worker"
    __table_args__ = (Index("worker_token", "token", unique=True), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    service: str = Field(sa_type=SafeText)
    hostname: str = Field(sa_type=SafeText)
    pid: int = Field(sa_type=BigInteger)
    queues: str = Field(sa_type=Text)
    device: str | None = Field(sa_type=SafeText)
    concurrency: int
    versions: str = Field(sa_type=Text)
    code: str | None = Field(sa_type=Text)
    state: str = Field(sa_type=Text)
    holding: str = Field(sa_type=Text)
    started_at: float
    beat_at: float
    clock_offset: float | None
    broker_silent_since: float | None
    left_at: float | None
    reason: str | None = Field(sa_type=SafeText)
    end_cause: str | None = Field(sa_type=Text)
    exit_code: int | None
    token: str | None = Field(sa_type=Text)
    supervisor: str | None = Field(sa_type=Text)
    pid_space: str | None = Field(sa_type=Text)


class ResourceLoadTable(SQLModel, table=True):
    """One set-up of a session fixture in a worker process, with its statistics.

    torn_down_at: for a failed set-up, when the evaluation was begun again; the failure counts no more.
    evaluation_id: for a failure that concerns one evaluation.
    fixture: the name of the fixture.
    scope_node: the part of the collection that it was defined at, as pytest names it.
    loaded_at: when it was set up.
    failure: what kind of failure it was: see `doteval.core.states.LoadFailureKind`.
    stats: JSON, what the object's `get_stats` says.
    teardown_seconds: how long the teardown took.
    """

    __tablename__ = "resource_load"
    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    worker_id: int = Field(index=True)
    evaluation_id: int | None = Field(index=True)
    fixture: str = Field(sa_type=SafeText)
    scope_node: str = Field(sa_type=SafeText)
    loaded_at: float
    seconds: float
    error: str | None = Field(sa_type=SafeText)
    failure: str | None = Field(sa_type=Text)
    stats: str | None = Field(sa_type=Text)
    torn_down_at: float | None
    teardown_seconds: float | None


WORKER = table_of(WorkerTable)
RESOURCE_LOAD = table_of(ResourceLoadTable)

"""Connects to the database and hides the differences between SQLite and PostgreSQL.

Every query goes through `Database.read` or `Database.write`. Both turn the errors of drivers into `StoreError`, whose
message holds no values. A transaction that writes takes SQLite's write lock when it begins (``BEGIN IMMEDIATE``):
waiting at the start is safe, upgrading a read transaction is not.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast
from weakref import WeakSet

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    Integer,
    Table,
    bindparam,
    create_engine,
    event,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from doteval.core import clocks
from doteval.errors import DotEvalError, StoreError, StoreTimeoutError
from doteval.store.driver_errors import RefusedError, is_refusal, store_error
from doteval.store.outages import Outages
from doteval.store.postgres import postgres_engine
from doteval.store.read_only import is_stale, only_read
from doteval.store.statements import Prepared
from doteval.store.url import Location

# Seconds that a writer waits for SQLite's write lock before it fails.
SQLITE_WAIT_SECONDS = 30.0
# It polls the lock: the pause grows by the first number to the second. A transaction of 300 rows takes milliseconds.
_POLL_SECONDS = 0.001
_LONGEST_POLL_SECONDS = 0.005
# Connections to SQLite that stay open for the next transaction. Giving one back to SQLAlchemy's pool and taking it
# again costs a quarter of the time that the store needs for a single result.
_MOST_IDLE = 5


class database_time(FunctionElement[float]):  # noqa: N801 (an SQL function)
    """The SQL for seconds since the epoch on the database's clock, the only clock that all worker processes share."""

    type = Float()
    inherit_cache = True


@compiles(database_time, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_time, "postgresql")
def _postgres_time(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


class Database:
    """A database behind a connection pool. Threads may share it, and forked processes may go on using it.

    read_seconds: connections cannot write, and a transaction ends with `StoreTimeoutError` after so many seconds; None
        for connections that may write.
    """

    def __init__(self, location: Location, *, read_seconds: float | None = None) -> None:
        self.location = location
        if location.path is not None:
            self.engine = _sqlite_engine(location, read_seconds)
        else:
            self.engine = postgres_engine(location, read_seconds)
        self._outages = Outages()
        # Idle connections, by whether they write. A lock is not needed, since list.append and list.pop are atomic.
        self._idle: dict[bool, list[Connection]] = {False: [], True: []}
        _open.add(self)

    @property
    def dialect(self) -> str:
        """SQLAlchemy's name of the database: sqlite or postgresql."""
        return self.engine.dialect.name

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"

    def read(self) -> AbstractContextManager[Connection]:
        """Open a transaction for a few queries. Keep it short, since an open reader delays SQLite's checkpoints."""
        return self._transaction(writes=False)

    def write(self) -> AbstractContextManager[Connection]:
        """Open a transaction that is committed at the end and rolled back on any exception."""
        return self._transaction(writes=True)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        idle = self._idle[writes]
        with self.translated(writes=writes):
            connection = self._useful(idle) or self.engine.connect().execution_options(doteval_writes=writes)
            try:
                with connection.begin():
                    yield connection
            except BaseException as error:
                self._give_up(connection, error)
                raise
            is_over = self._outages.used(writes=writes)
            # A connection to PostgreSQL may be lost while idle; it is checked before it is used again.
            if self.is_sqlite and len(idle) < _MOST_IDLE:
                idle.append(connection)
            else:
                connection.close()
                if is_over:
                    # Connections that were opened in the outage may lead to a server that can only be read.
                    self.engine.dispose()

    def _useful(self, idle: list[Connection]) -> Connection | None:
        """Take the connection that was used last, None if there is none. Those of a file that is gone are closed."""
        while idle:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            if self.location.path is None or not is_stale(connection.info, self.location.path):
                return connection
            connection.invalidate()
            connection.close()
        return None

    def _give_up(self, connection: Connection, error: BaseException) -> None:
        """Close the connection of a transaction that has failed."""
        if not self.is_sqlite and not isinstance(error, DotEvalError):
            # What failed may be the connection itself: to a server that became read-only in a failover, or without the
            # prepared statement that a pooler has given to somebody else. The next one is new.
            connection.invalidate()
            if not is_refusal(error):
                # The others were opened before, and would fail in the same way one after another.
                self.engine.dispose()
        connection.close()

    def hold(self, connection: Connection, evaluation_ids: Sequence[int], *, alone: bool) -> None:
        """Lock evaluations until the transaction ends.

        alone: take the lock exclusively, for changes to a whole evaluation; else share it, as writers of results do.

        It does nothing on SQLite, which has one writer at a time anyway.
        """
        if self.is_sqlite:
            return
        lock = _LOCK_ALONE if alone else _LOCK_SHARED
        # Always in the same order, so that two transactions cannot deadlock.
        for evaluation_id in sorted(set(evaluation_ids)):
            lock.run(connection, evaluation=evaluation_id)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
        self.engine.dispose()

    def forget_connections(self) -> None:
        """Forget all connections after a fork; they belong to the parent process."""
        for idle in self._idle.values():
            idle.clear()
        self.engine.dispose(close=False)

    @contextmanager
    def translated(self, *, writes: bool = False) -> Iterator[None]:
        """Turn errors of SQLAlchemy and of drivers inside the block into a `StoreError`.

        writes: whether the block needs a database that can be written
        """
        began = clocks.monotonic()
        try:
            yield
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            translated = store_error(error, self.location)
            if not isinstance(translated, (RefusedError, StoreTimeoutError)):
                translated.outage = self._outages.failed(began, writes=writes)
            raise translated from error


def insert_into(dialect: str, table: Table) -> sqlite.Insert:
    """An INSERT that supports ON CONFLICT, which both dialects spell alike."""
    return sqlite.insert(table) if dialect == "sqlite" else cast(sqlite.Insert, postgresql.insert(table))


_open: WeakSet[Database] = WeakSet()


def _forget_connections() -> None:
    # A forked child must neither use nor close the connections of its parent.
    for database in list(_open):
        database.forget_connections()


os.register_at_fork(after_in_child=_forget_connections)

# The first of the two keys of doteval's advisory locks, so that they do not collide with those of other applications.
_LOCK_SPACE = 0x646F7465


def _lock(function: Callable[..., ColumnElement[Any]]) -> Prepared:
    evaluation = bindparam("evaluation", type_=Integer)
    return Prepared(lambda _: select(function(literal_column(str(_LOCK_SPACE)), evaluation)))


_LOCK_ALONE = _lock(func.pg_advisory_xact_lock)
_LOCK_SHARED = _lock(func.pg_advisory_xact_lock_shared)

# The first version with RETURNING, upserts and json_each.
_OLDEST_SQLITE = (3, 38)


def _sqlite_engine(location: Location, read_seconds: float | None) -> Engine:
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise StoreError(
            f"this Python has SQLite {sqlite3.sqlite_version}; the result store needs 3.38 or newer",
            remedy="Use another build of Python, or a PostgreSQL result store.",
        )
    path = location.path
    assert path is not None
    engine = create_engine(
        location.url,
        hide_parameters=True,
        creator=lambda: sqlite3.connect(
            _uri(path, read_only=read_seconds is not None),
            uri=True,
            timeout=SQLITE_WAIT_SECONDS,
            check_same_thread=False,
        ),
        max_overflow=20,
        # The connection that was used last has pages and statements cached.
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # By itself sqlite3 would begin transactions, and take the lock, too late.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("doteval_writes")
        # Through the driver: SQLAlchemy's overhead would be longer than the statement.
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        if writes:
            _begin_to_write(driver, connection.connection.info)
        else:
            _set_wait(driver, connection.connection.info, SQLITE_WAIT_SECONDS)
            driver.execute("BEGIN")

    if read_seconds is not None:
        only_read(engine, path, read_seconds)
    return engine


def _begin_to_write(connection: sqlite3.Connection, info: dict[str, Any]) -> None:
    """Begin a transaction that writes as soon as the write lock is free.

    SQLite's own busy handler polls at growing intervals, up to 100 ms. Of two processes that write all the time, one
    would starve.
    """
    deadline, pause = clocks.monotonic() + SQLITE_WAIT_SECONDS, 0.0
    _set_wait(connection, info, 0.0)
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            # The lowest byte is the primary error code.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or clocks.monotonic() >= deadline:
                raise
        else:
            break
        pause = min(pause + _POLL_SECONDS, _LONGEST_POLL_SECONDS)
        time.sleep(pause)
    if not _has_log(connection, info):
        # Without a write-ahead log the commit has to wait for readers.
        _set_wait(connection, info, SQLITE_WAIT_SECONDS)


def _set_wait(connection: sqlite3.Connection, info: dict[str, Any], seconds: float) -> None:
    """Set how long SQLite itself waits for a lock. A PRAGMA that changes nothing is skipped: each releases the GIL."""
    if info.get("wait", SQLITE_WAIT_SECONDS) != seconds:
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        info["wait"] = seconds


def _has_log(connection: sqlite3.Connection, info: dict[str, Any]) -> bool:
    """Whether the database has a write-ahead log. Some file systems do not support it."""
    if "log" not in info and connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        info["log"] = True
    return "log" in info


def _uri(path: Path, *, read_only: bool) -> str:
    """The URI of the file: read-only if that is asked for, or if the file or its directory cannot be written."""
    uri = path.as_uri()
    directory = _writable(path.parent)
    if not read_only and (not path.exists() or (_writable(path) and directory)):
        return uri
    # For a write-ahead log SQLite creates another file in the directory, unless `immutable` says that nobody writes.
    logged = path.with_name(f"{path.name}-shm").exists()
    return f"{uri}?mode=ro" if directory or logged else f"{uri}?mode=ro&immutable=1"


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)

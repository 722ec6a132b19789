"""The connection to the database: SQLite and PostgreSQL made alike.

`Database.read` and `Database.write` are the only ways in. Both turn what drivers raise into
`StoreError`, whose message holds no values. SQLite writers take the write lock when they begin
(``BEGIN IMMEDIATE``): waiting at the start is safe, upgrading a read transaction is not.
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

from doteval.errors import StoreError
from doteval.store.driver_errors import store_error
from doteval.store.statements import Prepared
from doteval.store.url import Location

# Seconds that a writer waits for the write lock of SQLite, and between two looks whether it is free: the first time, by
# which each is longer than the one before, and at most. With groups of 300 rows a turn takes milliseconds.
SQLITE_WAIT = 30.0
_LOOK_SECONDS = 0.001
_LONGEST_LOOK_SECONDS = 0.005
_POSTGRES_CONNECT_WAIT = 10
# Connections to SQLite that are kept for the next transaction as they are: to give one back to SQLAlchemy's pool and to
# get it again takes a quarter of what the store takes for a lone result.
_MOST_IDLE = 5


class database_time(FunctionElement[float]):  # noqa: N801 (it reads as the SQL function that it is)
    """Seconds since the epoch by the database's clock: the only clock that all worker processes share."""

    type = Float()
    inherit_cache = True


@compiles(database_time, "sqlite")
def _sqlite_time(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(database_time, "postgresql")
def _postgres_time(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) AS double precision)"


class Database:
    """A database behind a connection pool. Safe to use from threads, and after a fork."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.engine = _sqlite_engine(location) if location.path is not None else _postgres_engine(location)
        # Those that nobody uses, by whether they write. No lock: to take one from the end of a list is one step of the
        # interpreter, and so is to put one back.
        self._idle: dict[bool, list[Connection]] = {False: [], True: []}
        _open.add(self)

    @property
    def dialect(self) -> str:
        """What SQLAlchemy calls it: sqlite, postgresql."""
        return self.engine.dialect.name

    @property
    def is_sqlite(self) -> bool:
        return self.dialect == "sqlite"

    def read(self) -> AbstractContextManager[Connection]:
        """A connection for one or a few queries. Keep it short: an open reader holds back SQLite's checkpoints."""
        return self._transaction(writes=False)

    def write(self) -> AbstractContextManager[Connection]:
        """A transaction: committed at the end, rolled back on any exception."""
        return self._transaction(writes=True)

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        idle = self._idle[writes]
        with self.translated():
            try:
                connection = idle.pop()
            except IndexError:
                connection = self.engine.connect().execution_options(doteval_writes=writes)
            try:
                with connection.begin():
                    yield connection
            except BaseException:
                connection.close()
                raise
            # To PostgreSQL it may be lost meanwhile, for which the pool looks when it gives one out.
            if self.is_sqlite and len(idle) < _MOST_IDLE:
                idle.append(connection)
            else:
                connection.close()

    def hold(self, connection: Connection, evaluation_ids: Sequence[int], *, alone: bool) -> None:
        """Keep whole-evaluation changes and the writing of results apart until this transaction ends.

        Writers of results share; `alone` waits for them and keeps them out. SQLite has one writer anyway.
        """
        if self.is_sqlite:
            return
        lock = _LOCK_ALONE if alone else _LOCK_SHARED
        # Always in the same order, so that two transactions cannot wait for each other.
        for evaluation_id in sorted(set(evaluation_ids)):
            lock.run(connection, evaluation=evaluation_id)

    def close(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()
        self.engine.dispose()

    def forget_connections(self) -> None:
        """Leave all connections to the process that this one was forked from."""
        for idle in self._idle.values():
            idle.clear()
        self.engine.dispose(close=False)

    @contextmanager
    def translated(self) -> Iterator[None]:
        """What SQLAlchemy and drivers raise inside becomes a `StoreError`."""
        try:
            yield
        except (SQLAlchemyError, self.engine.dialect.loaded_dbapi.Error) as error:
            raise store_error(error, self.location) from error


def insert_into(dialect: str, table: Table) -> sqlite.Insert:
    """An INSERT that knows ON CONFLICT: the two dialects spell it alike."""
    return sqlite.insert(table) if dialect == "sqlite" else cast(sqlite.Insert, postgresql.insert(table))


_open: WeakSet[Database] = WeakSet()


def _forget_connections() -> None:
    # A child of a fork must not use its parent's connections, nor close them.
    for database in list(_open):
        database.forget_connections()


os.register_at_fork(after_in_child=_forget_connections)

# The first of the two keys of our advisory locks, to stay clear of other users of the database.
_LOCK_SPACE = 0x646F7465


def _lock(function: Callable[..., ColumnElement[Any]]) -> Prepared:
    evaluation = bindparam("evaluation", type_=Integer)
    return Prepared(lambda _: select(function(literal_column(str(_LOCK_SPACE)), evaluation)))


_LOCK_ALONE = _lock(func.pg_advisory_xact_lock)
_LOCK_SHARED = _lock(func.pg_advisory_xact_lock_shared)

# For RETURNING, upserts and json_each.
_OLDEST_SQLITE = (3, 38)


def _sqlite_engine(location: Location) -> Engine:
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
        creator=lambda: sqlite3.connect(_uri(path), uri=True, timeout=SQLITE_WAIT, check_same_thread=False),
        max_overflow=20,
        # The one that was used last has its pages and statements at hand.
        pool_use_lifo=True,
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _: object) -> None:
        # sqlite3's own idea of when to begin a transaction would take the lock too late.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA cache_size = -16000")
        connection.execute("PRAGMA wal_autocheckpoint = 4000")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("doteval_writes")
        # By the driver: what SQLAlchemy does around a statement takes longer than this one.
        driver = cast(sqlite3.Connection, connection.connection.dbapi_connection)
        if writes:
            _begin_to_write(driver, connection.connection.info)
        else:
            _set_wait(driver, connection.connection.info, SQLITE_WAIT)
            driver.execute("BEGIN")

    return engine


def _begin_to_write(connection: sqlite3.Connection, info: dict[str, Any]) -> None:
    """Begin a transaction that writes, as soon as nobody else does.

    SQLite itself looks at longer and longer intervals, up to a tenth of a second: of two processes that write all the
    time one waits while the other has its turn again and again.
    """
    deadline, pause = time.monotonic() + SQLITE_WAIT, 0.0
    _set_wait(connection, info, 0.0)
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            # The lowest byte says what it is, the others why.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
        else:
            break
        pause = min(pause + _LOOK_SECONDS, _LONGEST_LOOK_SECONDS)
        time.sleep(pause)
    if not _has_log(connection, info):
        # Its end is to wait for those who read.
        _set_wait(connection, info, SQLITE_WAIT)


def _set_wait(connection: sqlite3.Connection, info: dict[str, Any], seconds: float) -> None:
    """Say how long SQLite itself waits for a lock; only if that is new, since even this gives Python's lock away."""
    if info.get("wait", SQLITE_WAIT) != seconds:
        connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
        info["wait"] = seconds


def _has_log(connection: sqlite3.Connection, info: dict[str, Any]) -> bool:
    """Whether the database has a write-ahead log, which not every file system allows."""
    if "log" not in info and connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
        info["log"] = True
    return "log" in info


def _uri(path: Path) -> str:
    """How SQLite is to open the file: to read only, where it or its directory cannot be written."""
    uri = path.as_uri()
    directory = _writable(path.parent)
    if not path.exists() or (_writable(path) and directory):
        return uri
    # Beside a file with a write-ahead log SQLite wants to make another file. It need not if nobody writes.
    logged = path.with_name(f"{path.name}-shm").exists()
    return f"{uri}?mode=ro" if directory or logged else f"{uri}?mode=ro&immutable=1"


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _postgres_engine(location: Location) -> Engine:
    options: dict[str, Any] = (
        {} if "connect_timeout" in location.url.query else {"connect_timeout": _POSTGRES_CONNECT_WAIT}
    )
    return create_engine(
        location.url,
        hide_parameters=True,
        pool_pre_ping=True,
        connect_args=options,
    )

"""Has connections only read, and ends queries that take too long.

`doteval view` reads through them: nothing that a page asks for can change the store, or keep it busy for long.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import InvalidatePoolError

from doteval.core import clocks

# SQLite asks after so many steps of its virtual machine, about a millisecond of work.
_STEPS = 20_000
# Kilobytes of pages that a connection keeps. A server of pages has a connection for each of its threads.
_CACHE_KILOBYTES = 4_000


class _Deadline:
    """When the transaction of a connection has to be over, by `clocks.monotonic`."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = float("inf")

    def is_over(self) -> bool:
        return clocks.monotonic() > self.at


FileIdentity = tuple[int, int]


def file_identity(path: Path) -> FileIdentity | None:
    """Which file is at a path: its device and inode, None without one. Another file there has others."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_stale(info: Mapping[str, Any], path: Path) -> bool:
    """Whether a connection, of which `info` is that of SQLAlchemy, only reads, and reads a file that is gone."""
    return "file" in info and info["file"] != file_identity(path)


def only_read(engine: Engine, path: Path, seconds: float) -> None:
    """Have an engine for SQLite only read, in transactions of at most so many seconds.

    A connection of a file that is no longer at its path would go on reading it: it is replaced by a new one.

    It is called after the engine's other listeners are attached, since it changes what they set.
    """

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        deadline = _Deadline()
        record.info["deadline"] = deadline
        record.info["file"] = file_identity(path)
        connection.set_progress_handler(deadline.is_over, _STEPS)

    @event.listens_for(engine, "checkout")
    def check(_: sqlite3.Connection, record: Any, __: Any) -> None:
        if is_stale(record.info, path):
            # So are the others that were opened before.
            raise InvalidatePoolError("the file of the store is another one now")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.connection.info["deadline"].at = clocks.monotonic() + seconds


def read_only_postgres(engine: Engine, seconds: float) -> Engine:
    """An engine for PostgreSQL like this one, whose transactions only read, in statements of at most so many seconds.

    Both are set for each transaction, so that they also hold behind a pooler such as PgBouncer in transaction mode.
    """
    reading = engine.execution_options(postgresql_readonly=True)

    @event.listens_for(reading, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"SET LOCAL statement_timeout = {int(seconds * 1000)}")

    return reading

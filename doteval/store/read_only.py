"""Has connections only read, and ends queries that take too long.

`doteval view` reads through them: nothing that a page asks for can change the store, or keep it busy for long.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, event

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


def only_read(engine: Engine, seconds: float) -> None:
    """Have an engine for SQLite only read, in transactions of at most so many seconds.

    It is called after the engine's other listeners are attached, since it changes what they set.
    """

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KILOBYTES}")
        deadline = _Deadline()
        record.info["deadline"] = deadline
        connection.set_progress_handler(deadline.is_over, _STEPS)

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

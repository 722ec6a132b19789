"""Runs the statements of the hot path on the driver: SQLAlchemy compiles each of them once.

Around a statement that takes SQLite 10 µs, SQLAlchemy spends 30 µs in a loop and about 100 µs when results are rare and
its code has left the processor's caches. These statements skip its work: the driver converts parameters and results,
and raises its own errors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from sqlalchemy import Connection, Select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.expression import ClauseElement

# Parameters are ":name" for SQLite and "%(name)s" for psycopg.
_SQLITE = sqlite.dialect(paramstyle="named")
POSTGRES = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


def cursor_of(connection: Connection) -> DBAPICursor:
    """A cursor of the driver in the connection's transaction."""
    return connection.connection.cursor()


def driver_lines(connection: Connection, query: Select[Any], given: Mapping[str, Any] | None = None) -> list[Any]:
    """The lines of a query as the driver gives them: SQLAlchemy's rows take twice as long, for millions of them."""
    cursor = connection.execute(query, given or {}).cursor
    assert cursor is not None
    return list(cursor.fetchall())


class Prepared:
    """A compiled statement.

    make: builds it for the dialect "sqlite" or "postgresql".
    columns: the columns that an INSERT fills.
    """

    def __init__(self, make: Callable[[str], ClauseElement], *columns: str) -> None:
        self._make = make
        self._columns = list(columns) or None

    def run(self, connection: Connection, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute it in the connection's transaction. Returns its rows."""
        cursor = cursor_of(connection)
        try:
            cursor.execute(self._sqlite if connection.dialect.name == "sqlite" else self._postgres, parameters)
            return list(cursor.fetchall()) if cursor.description is not None else []
        finally:
            cursor.close()

    @cached_property
    def _sqlite(self) -> str:
        return str(self._make("sqlite").compile(dialect=_SQLITE, column_keys=self._columns))

    @cached_property
    def _postgres(self) -> str:
        return str(self._make("postgresql").compile(dialect=POSTGRES, column_keys=self._columns))

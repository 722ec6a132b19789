"""Runs the statements of the hot path on the driver: SQLAlchemy compiles each of them once.

Around a statement that takes SQLite 10 µs, SQLAlchemy spends 30 µs in a loop and about 100 µs when results are rare and
its code has left the processor's caches. These statements skip its work: the driver converts parameters and results,
and raises its own errors.

For each row of a result the SQLite driver releases the GIL and waits to get it back, while evaluation code runs. So a
query of many rows returns them as one JSON text.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cached_property
from typing import Any

import orjson
from sqlalchemy import Connection, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.sql.expression import ClauseElement, CompoundSelect

# Parameters are ":name" for SQLite and "%(name)s" for psycopg.
_SQLITE = sqlite.dialect(paramstyle="named")
POSTGRES = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


def cursor_of(connection: Connection) -> DBAPICursor:
    """A cursor of the driver in the connection's transaction."""
    return connection.connection.cursor()


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


class PreparedQuery:
    """A compiled query for many rows of integers and text; `make` builds it for "sqlite" or "postgresql"."""

    def __init__(self, make: Callable[[str], Select[Any] | CompoundSelect[Any]]) -> None:
        self._by_line = Prepared(make)
        self._as_one = Prepared(lambda dialect: _as_one(make(dialect)))

    def lines(self, connection: Connection, **parameters: Any) -> list[Any]:
        """Execute it. Returns the rows in the query's order, each a sequence of its columns."""
        if connection.dialect.name == "sqlite":
            try:
                ((text,),) = self._as_one.run(connection, **parameters)
                return list(orjson.loads(text))
            except sqlite3.DataError:
                # The rows exceed SQLite's longest text of a billion bytes.
                pass
        return self._by_line.run(connection, **parameters)


def _as_one(query: Select[Any] | CompoundSelect[Any]) -> Select[Any]:
    lines = query.subquery()
    return select(func.json_group_array(func.json_array(*lines.c)))

"""Statements of the hot path: put together by SQLAlchemy once, and given to the driver as they are.

Around a statement that takes SQLite 10 µs, SQLAlchemy takes 30 where it does nothing else, and some 100 where a
result comes every now and then, when the processor's caches hold other things. What it does for a statement is not
done for these: parameters and results are what the driver makes of them, and its errors are the driver's own.

SQLite gives lines one by one, and for each of them the driver gives Python's lock away and waits for it, while rows
run. Many lines come as one therefore, in JSON.
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

# How parameters are named in the texts: ":name" and "%(name)s".
_SQLITE = sqlite.dialect(paramstyle="named")
POSTGRES = postgresql.psycopg.dialect()  # type: ignore[no-untyped-call]


def cursor_of(connection: Connection) -> DBAPICursor:
    """A cursor of the driver, in the connection's transaction."""
    return connection.connection.cursor()


class Prepared:
    """A statement that `make` gives for "sqlite" or "postgresql"; an INSERT's `columns` are those that get values."""

    def __init__(self, make: Callable[[str], ClauseElement], *columns: str) -> None:
        self._make = make
        self._columns = list(columns) or None

    def run(self, connection: Connection, **parameters: Any) -> list[tuple[Any, ...]]:
        """Execute it in the connection's transaction. Returns the lines that it gives."""
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
    """A query of many lines, of integers and text: `make` gives it for "sqlite" or "postgresql"."""

    def __init__(self, make: Callable[[str], Select[Any] | CompoundSelect[Any]]) -> None:
        self._by_line = Prepared(make)
        self._as_one = Prepared(lambda dialect: _as_one(make(dialect)))

    def lines(self, connection: Connection, **parameters: Any) -> list[Any]:
        """The lines, each a sequence of its columns, in the query's order."""
        if connection.dialect.name == "sqlite":
            try:
                ((text,),) = self._as_one.run(connection, **parameters)
                return list(orjson.loads(text))
            except sqlite3.DataError:
                # Together they are longer than SQLite's longest text, a billion bytes.
                pass
        return self._by_line.run(connection, **parameters)


def _as_one(query: Select[Any] | CompoundSelect[Any]) -> Select[Any]:
    lines = query.subquery()
    return select(func.json_group_array(func.json_array(*lines.c)))

"""Inserts many rows at once, on the driver.

SQLAlchemy turns every row into a mapping and back. Here rows are tuples in the order of the columns, with values that
the driver accepts, which is twice as fast. PostgreSQL gets each column as one array, in a single round trip.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    ColumnElement,
    Connection,
    Table,
    any_,
    func,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects import postgresql

from doteval.store.statements import POSTGRES, cursor_of

_NUMBERS = postgresql.ARRAY(BigInteger)


class BulkInsert:
    """An INSERT into the columns of a table that skips rows whose key exists.

    returning: columns to return of the inserted rows, in no particular order. On SQLite, where nobody else can write
        during a transaction, they are not queried, and a key that exists is an error: look before you insert.
    """

    def __init__(self, table: Table, columns: Sequence[str], *, returning: Sequence[str] = ()) -> None:
        self.columns = tuple(columns)
        self._returning = tuple(returning)
        name = POSTGRES.identifier_preparer.format_table(table)
        head = f"INSERT INTO {name} ({', '.join(self.columns)})"
        types = [table.c[column].type.dialect_impl(POSTGRES).compile(POSTGRES) for column in self.columns]
        arrays = ", ".join(f"%b::{kind}[]" for kind in types)
        # The statements consist of names of doteval's own tables and types only.
        end = "" if self._returning else " ON CONFLICT DO NOTHING"
        self._sqlite = f"{head} VALUES ({', '.join('?' * len(self.columns))}){end}"
        self._postgres = f"{head} SELECT * FROM unnest({arrays}) ON CONFLICT DO NOTHING"  # noqa: S608
        if self._returning:
            self._postgres += f" RETURNING {', '.join(self._returning)}"

    def run(self, connection: Connection, lines: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Insert rows. Returns the `returning` columns of the inserted ones."""
        if not lines:
            return []
        _, returned = self._insert(connection, lines)
        if connection.dialect.name == "sqlite":
            places = [self.columns.index(column) for column in self._returning]
            return [tuple(line[place] for place in places) for line in lines]
        return returned

    def count(self, connection: Connection, lines: Sequence[tuple[Any, ...]]) -> int:
        """Insert rows. Returns the number of inserted ones. Not for statements with `returning`."""
        return self._insert(connection, lines)[0] if lines else 0

    def _insert(self, connection: Connection, lines: Sequence[tuple[Any, ...]]) -> tuple[int, list[tuple[Any, ...]]]:
        cursor = cursor_of(connection)
        try:
            if connection.dialect.name == "sqlite":
                cursor.executemany(self._sqlite, lines)
                return cursor.rowcount, []
            # %b sends values in binary. In text, psycopg would search every value for quotes and backslashes.
            cursor.execute(self._postgres, tuple(list(column) for column in zip(*lines, strict=True)))
            return cursor.rowcount, list(cursor.fetchall()) if self._returning else []
        finally:
            cursor.close()


def among(connection: Connection, column: Column[Any], numbers: Iterable[int]) -> ColumnElement[bool]:
    """The condition that a column is one of any number of integers.

    They are one parameter: an IN with hundreds of them would be a new statement to compile and parse each time.
    """
    dialect = connection.dialect.name
    return among_given(dialect, column, literal(numbers_given(dialect, numbers)))


def among_given(dialect: str, column: Column[Any], numbers: BindParameter[Any]) -> ColumnElement[bool]:
    """`among` for a compiled statement, whose parameter gets the value of `numbers_given`."""
    if dialect == "sqlite":
        return column.in_(select(func.json_each(numbers).table_valued("value").c.value))
    return column == any_(type_coerce(numbers, _NUMBERS))


def numbers_given(dialect: str, numbers: Iterable[int]) -> Any:
    """Integers as the value of the parameter of `among_given`."""
    return orjson.dumps(list(numbers)).decode() if dialect == "sqlite" else list(numbers)

"""A store with lines in every table, whose values are at the edges of what columns take."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Integer, LargeBinary, Table, insert, select

from doteval.store import Store
from doteval.store.tables import ALL

_TEXTS = ("", "Ünï🙂 \\N \\x00 \t'\"\n", "x" * 70_000, '{"$type":"float","value":"NaN"}')
_FLOATS = (0.0, -1.5e300, 5e-324, 0.1, 1_764_500_000.123456, math.inf)
_BYTES = (b"", bytes(range(256)), b"\\x00")
# Ids given to lines that are gone.
GONE = 1_000
LINES = 3


def fill_every_table(store: Store) -> None:
    """Add lines to all tables, and have given ids to lines that are deleted since."""
    with store._database.write() as connection:
        for table in ALL:
            lines = [_line(table, number) for number in range(1, LINES + 1)]
            connection.execute(insert(table), lines)
            if table.autoincrement_column is not None and store._database.is_sqlite:
                connection.execute(insert(table), [_line(table, GONE)])
                connection.execute(table.delete().where(table.c.id == GONE))


def all_lines(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """The lines of all tables as SQLAlchemy reads them, by table."""
    with store._database.read() as connection:
        return {
            table.name: [tuple(line) for line in connection.execute(select(table).order_by(*table.primary_key))]
            for table in ALL
        }


def _line(table: Table, number: int) -> dict[str, Any]:
    return {column.name: _value(column, place + number, number) for place, column in enumerate(table.c)}


def _value(column: Column[Any], place: int, number: int) -> Any:
    if column.foreign_keys:
        return min(number, LINES)
    if column is column.table.autoincrement_column:
        return number
    if column.nullable and place % 3 == 0:
        return None
    kind = column.type
    # A key of several columns differs by the first.
    if isinstance(kind, Integer) or type(kind).__name__ == "LongId":
        return number if column.primary_key else (2**63 - place if isinstance(kind, BigInteger) else -place)
    if isinstance(kind, Boolean):
        return place % 2 == 0
    if isinstance(kind, Float):
        return _FLOATS[place % len(_FLOATS)]
    if isinstance(kind, LargeBinary):
        return _BYTES[place % len(_BYTES)]
    text = _TEXTS[place % len(_TEXTS)]
    return f"{number} {text[:100]}" if column.primary_key or column.unique or column.index else text

"""Measures what the parts of the store take on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import OperationalError

from doteval.store.engine import Database
from doteval.store.tables import ALL, ATTEMPT, CALL, RESULT, ROW, SCORE, USAGE

_PARTS = {
    ROW.name: "rows",
    RESULT.name: "results",
    ATTEMPT.name: "attempts",
    SCORE.name: "scores",
    USAGE.name: "usage",
    CALL.name: "journal",
}
_OTHER = "other"
_FREE = "free"

# Each table and each index, with the table that it belongs to.
_OF_SQLITE = text("""
    SELECT schema.tbl_name, sum(stat.pgsize) FROM dbstat AS stat
    LEFT JOIN sqlite_schema AS schema ON schema.name = stat.name
    WHERE stat.aggregate = 1 GROUP BY 1
""")
_OF_POSTGRES = text("SELECT pg_total_relation_size(to_regclass(quote_ident(:name)))")


@dataclass(frozen=True, slots=True)
class StoreSizes:
    """Bytes on disk.

    parts: of rows, results, attempts, scores, usage, the call journal, other tables, and the space that is free for
        what comes; with their indexes. Empty if this SQLite cannot tell.
    total: of everything.
    calls: how many calls the journal holds.
    call_bytes: what their packed requests and replies take of it.
    """

    parts: Mapping[str, int]
    total: int
    calls: int
    call_bytes: int


def measure(database: Database) -> StoreSizes:
    """Measure a store. It reads all pages of a SQLite file.

    Raises StoreError: the store cannot be reached.
    """
    with database.read() as connection:
        calls, packed = connection.execute(select(func.count(), func.sum(func.length(CALL.c.body)))).one()
    with database.read() as connection:
        if not database.is_sqlite:
            parts = _of_postgres(connection)
            return StoreSizes(parts, sum(parts.values()), int(calls), int(packed or 0))
        pages, free, size = (
            int(connection.scalar(text(f"PRAGMA {name}")) or 0)
            for name in ("page_count", "freelist_count", "page_size")
        )
        try:
            parts = {**_by_part(connection), _FREE: free * size}
        except OperationalError:
            # It was compiled without the table dbstat.
            parts = {}
    return StoreSizes(parts, pages * size, int(calls), int(packed or 0))


def _by_part(connection: Connection) -> dict[str, int]:
    return _summed({line[0]: line[1] for line in connection.execute(_OF_SQLITE)})


def _of_postgres(connection: Connection) -> dict[str, int]:
    return _summed({table.name: connection.scalar(_OF_POSTGRES, {"name": table.name}) for table in ALL})


def _summed(by_table: Mapping[str | None, int | None]) -> dict[str, int]:
    parts: Counter[str] = Counter(dict.fromkeys([*_PARTS.values(), _OTHER], 0))
    for name, size in by_table.items():
        parts[_PARTS.get(name or "", _OTHER)] += size or 0
    return dict(parts)

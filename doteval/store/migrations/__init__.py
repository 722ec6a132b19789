"""Schema versions of the result store, and how a database gets to the newest."""

from __future__ import annotations

from sqlalchemy import Connection, inspect
from sqlmodel import SQLModel

from doteval.store import tables
from doteval.store.engine import Database


def prepare(database: Database) -> None:
    """Create or check the schema."""
    with database.engine.connect() as connection:
        if _has(connection):
            return
    if database.is_sqlite:
        raw = database.engine.raw_connection()
        raw.cursor().execute("PRAGMA journal_mode = WAL")
        raw.close()
    with database.write() as connection:
        SQLModel.metadata.create_all(connection, tables=list(tables.ALL))


def _has(connection: Connection) -> bool:
    return inspect(connection).has_table("tally")

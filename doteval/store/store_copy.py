"""Copies a whole store into an empty one, in a database of the same kind or of the other.

The copy is one transaction of the target, its tables included, and shows one moment of the source. It is committed
after every table has been read back, so that a target holds the whole store or nothing. Lines stream from one driver to
the other, so that memory does not depend on the size of the store; PostgreSQL reads and writes them by COPY.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import Connection, Table, func, select, text

from doteval.core.wording import counted
from doteval.errors import StoreError, StoreReadOnlyError, UsageError
from doteval.store.connection_errors import role_of
from doteval.store.engine import Database
from doteval.store.migrations import create_for_copy
from doteval.store.statements import POSTGRES, cursor_of
from doteval.store.tables import ALL, EXPERIMENT

if TYPE_CHECKING:
    from psycopg import Cursor

# Progress is reported after so many lines.
_STEP = 5_000
_NAMED = 3
# The types of columns as PostgreSQL's binary COPY names them, by their SQL.
_BINARY_TYPES = {
    "BIGINT": "int8",
    "BOOLEAN": "bool",
    "BYTEA": "bytea",
    "FLOAT": "float8",
    "INTEGER": "int4",
    "TEXT": "text",
    "VARCHAR": "text",
}
# PostgreSQL ends transactions that wait for their client, and long statements, if its settings say so.
_PATIENT = (
    "SET LOCAL statement_timeout = 0",
    "SET LOCAL idle_in_transaction_session_timeout = 0",
    "SET LOCAL lock_timeout = '10s'",
)


@dataclass(frozen=True, slots=True)
class CopyProgress:
    """How far the copy of one table is.

    done, total: lines of it. checking: whether they are read back, after all tables have been copied.
    """

    table: str
    done: int
    total: int
    checking: bool


@dataclass(frozen=True, slots=True)
class CopiedTable:
    """A table of which source and target have the same lines.

    checksum: 16 hexadecimal digits, the same for the same lines in any order and on either kind of database.
    """

    name: str
    lines: int
    checksum: str


@dataclass(frozen=True, slots=True)
class CopiedStore:
    """A finished copy. `target` is its URL without the password."""

    target: str
    tables: tuple[CopiedTable, ...]


def copy_database(source: Database, target: Database, on_progress: Callable[[CopyProgress], None]) -> CopiedStore:
    """Copy all tables of a database with the newest schema into a target that holds nothing.

    Raises UsageError: the target holds something.
    Raises StoreVersionError: its schema is older or newer.
    Raises StoreError: one of the two cannot be used, or a table is not the same after it was copied.
    """
    copied: list[CopiedTable] = []
    with target.write() as into:
        _prepare(target, into)
        with source.read() as out:
            _take_snapshot(out)
            totals = {table.name: out.scalar(select(func.count()).select_from(table)) or 0 for table in ALL}
            _set_last_ids(target, into, _last_ids(out))
            for table in ALL:
                report = _reporter(table, totals[table.name], on_progress, checking=False)
                checksum = _Checksum(table)
                lines = checksum.of(_translated(source, _read(out, table)), report)
                with target.translated(writes=True):
                    _write(into, table, lines)
                copied.append(checksum.result())
        # The source is not needed any more: an open reader keeps SQLite from reusing its log.
        for table, expected in zip(ALL, copied, strict=True):
            report = _reporter(table, expected.lines, on_progress, checking=True)
            checksum = _Checksum(table)
            for _ in checksum.of(_read(into, table), report):
                pass
            if checksum.result() != expected:
                raise StoreError(
                    f"the table {table.name} of {target.location.shown} is not what was read from "
                    f"{source.location.shown}; nothing was kept",
                    remedy="Try again. If it happens again, check the disk of the target.",
                )
        if not target.is_sqlite:
            # Without statistics the planner knows nothing of the new tables until autovacuum has looked at them.
            for table in ALL:
                into.exec_driver_sql(f"ANALYZE {_name(table)}")
    return CopiedStore(target.location.shown, tuple(copied))


def _prepare(target: Database, into: Connection) -> None:
    """Make the tables of the target, or see to it that they are empty and stay so until the copy is there."""
    if not target.is_sqlite:
        for statement in _PATIENT:
            into.exec_driver_sql(statement)
    if create_for_copy(target, into):
        return
    if not target.is_sqlite:
        into.execute(text(f"LOCK TABLE {', '.join(map(_name, ALL))} IN EXCLUSIVE MODE"))
    experiments = into.scalar(select(func.count()).select_from(EXPERIMENT)) or 0
    if experiments:
        names = into.scalars(select(EXPERIMENT.c.name).order_by(EXPERIMENT.c.id).limit(_NAMED)).all()
        found = (
            f"{counted(experiments, 'experiment')} ({', '.join(names)}{', ...' if experiments > len(names) else ''})"
        )
    else:
        taken = [table.name for table in ALL if into.execute(select(table).limit(1)).first() is not None]
        if not taken:
            return
        found = f"no experiment, but lines in {counted(len(taken), 'table')}: {', '.join(taken)}"
    raise UsageError(
        f"{target.location.shown} is not empty: it holds {found}",
        remedy="Give a new file or an empty database (createdb NAME), and start workers on it after the copy.",
    )


def _take_snapshot(out: Connection) -> None:
    if out.dialect.name == "postgresql":
        # Every query of the transaction then sees the moment of the first one, as in SQLite anyway.
        out.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        for statement in _PATIENT:
            out.exec_driver_sql(statement)


def _read(connection: Connection, table: Table) -> Iterator[tuple[Any, ...]]:
    """Stream the lines of a table, with the values that both drivers take."""
    cursor = cursor_of(connection)
    try:
        if connection.dialect.name == "sqlite":
            # The names are those of doteval's own tables.
            cursor.execute(f"SELECT {_columns(table)} FROM {_name(table)}")  # noqa: S608
            lines = cast(Iterable[tuple[Any, ...]], cursor)
            flags = [place for place, column in enumerate(table.c) if _binary_type(column) == "bool"]
            yield from _with_flags(lines, flags) if flags else lines
        else:
            with cast("Cursor[Any]", cursor).copy(f"COPY {_name(table)} ({_columns(table)}) TO STDOUT BINARY") as copy:
                copy.set_types([_binary_type(column) for column in table.c])
                yield from copy.rows()
    finally:
        cursor.close()


def _with_flags(lines: Iterable[tuple[Any, ...]], flags: list[int]) -> Iterator[tuple[Any, ...]]:
    """Turn the numbers that SQLite has for flags into bools."""
    for line in lines:
        values = list(line)
        for place in flags:
            if values[place] is not None:
                values[place] = bool(values[place])
        yield tuple(values)


def _write(connection: Connection, table: Table, lines: Iterable[tuple[Any, ...]]) -> None:
    cursor = cursor_of(connection)
    try:
        if connection.dialect.name == "sqlite":
            marks = ", ".join("?" * len(table.c))
            statement = f"INSERT INTO {_name(table)} ({_columns(table)}) VALUES ({marks})"  # noqa: S608
            cursor.executemany(statement, cast(Any, lines))
        else:
            with cast("Cursor[Any]", cursor).copy(f"COPY {_name(table)} ({_columns(table)}) FROM STDIN BINARY") as copy:
                copy.set_types([_binary_type(column) for column in table.c])
                for line in lines:
                    copy.write_row(line)
    finally:
        cursor.close()


def _translated(database: Database, lines: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Have errors while lines are read name the database that they are read from."""
    with database.translated():
        yield from lines


class _Checksum:
    """Adds up hashes of lines, in any order."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._floats = [place for place, column in enumerate(table.c) if _binary_type(column) == "float8"]
        self._lines = 0
        self._sum = 0

    def of(self, lines: Iterable[tuple[Any, ...]], report: Callable[[int], None]) -> Iterator[tuple[Any, ...]]:
        """Pass lines on, and report how many they were so far."""
        report(0)
        for line in lines:
            self._sum += _hash(line, self._floats)
            self._lines += 1
            if self._lines % _STEP == 0:
                report(self._lines)
            yield line
        report(self._lines)

    def result(self) -> CopiedTable:
        return CopiedTable(self._table.name, self._lines, f"{self._sum % 2**64:016x}")


def _hash(line: tuple[Any, ...], floats: list[int]) -> int:
    values = list(line)
    for place in floats:
        value = values[place]
        if value is not None:
            # SQLite has no NaN, for which it stores NULL, and no negative zero.
            values[place] = value + 0.0 if value == value else None
    return int.from_bytes(hashlib.blake2b(repr(values).encode(), digest_size=8).digest())


def _last_ids(out: Connection) -> Mapping[str, int]:
    """The last id that each table with a sequence has given, also to a line that has been deleted since."""
    is_sqlite = out.dialect.name == "sqlite"
    given = {}
    if is_sqlite:
        given = {line.name: line.seq for line in out.execute(text("SELECT name, seq FROM sqlite_sequence"))}
    found = {}
    for table in _with_sequence():
        last = given.get(table.name) if is_sqlite else out.scalar(_LAST_VALUE, {"name": _name(table)})
        found[table.name] = max(int(last or 0), int(out.scalar(select(func.max(table.c.id))) or 0))
    return found


def _set_last_ids(target: Database, into: Connection, last_ids: Mapping[str, int]) -> None:
    """Have the sequences of the target go on behind these ids. It comes first, since the role may lack the right."""
    for table in _with_sequence():
        last = last_ids[table.name]
        if last and target.is_sqlite:
            if table.dialect_options["sqlite"]["autoincrement"]:
                into.execute(
                    text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :last)"),
                    {"name": table.name, "last": last},
                )
        elif last:
            if not into.scalar(_MAY_SET, {"name": _name(table)}):
                role = role_of(target.location)
                raise StoreReadOnlyError(
                    f"{target.location.shown} cannot be copied into: the role {role} may not set the sequences of ids",
                    remedy="Run doteval db copy as the role that owns the tables, or let it create them.",
                )
            into.execute(_SET_VALUE, {"name": _name(table), "last": last})


# A role that may only read tables does not see the sequence; the largest id has to do then.
_LAST_VALUE = text(
    "SELECT CASE WHEN has_sequence_privilege(id, 'SELECT,USAGE') THEN pg_sequence_last_value(id) END "
    "FROM (SELECT pg_get_serial_sequence(:name, 'id')::regclass AS id) AS sequence"
)
_MAY_SET = text("SELECT has_sequence_privilege(pg_get_serial_sequence(:name, 'id')::regclass, 'UPDATE')")
_SET_VALUE = text("SELECT setval(pg_get_serial_sequence(:name, 'id')::regclass, :last)")


def _with_sequence() -> list[Table]:
    return [table for table in ALL if table.autoincrement_column is not None]


def _reporter(
    table: Table, total: int, on_progress: Callable[[CopyProgress], None], *, checking: bool
) -> Callable[[int], None]:
    return lambda done: on_progress(CopyProgress(table.name, done, total, checking))


def _name(table: Table) -> str:
    return POSTGRES.identifier_preparer.format_table(table)


def _columns(table: Table) -> str:
    return ", ".join(map(POSTGRES.identifier_preparer.format_column, table.c))


def _binary_type(column: Any) -> str:
    return _BINARY_TYPES[column.type.dialect_impl(POSTGRES).compile(POSTGRES)]

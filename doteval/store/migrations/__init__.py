"""Schema versions of the result store, and how a database gets to the newest.

A new database gets the newest schema at once. An older SQLite file is brought forward when it is
opened, after a copy of it was made; an older PostgreSQL database is not, since others may be using it:
that is for ``doteval db upgrade``. A database of a newer doteval is left alone.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, exists, inspect, select, text
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from doteval.errors import StoreError, StoreVersionError
from doteval.store.engine import SQLITE_WAIT, Database
from doteval.store.tables import ALL, EXPERIMENT

# Not Alembic's own name: the database may hold the tables of another application that uses it.
VERSION_TABLE = "doteval_version"

# Every schema version in order; the last one is what this doteval uses.
VERSIONS = ("0001", "0002", "0003", "0004", "0005", "0006")

_HERE = Path(__file__).parent

# "dotevals", as a key for the lock under which PostgreSQL's schema is made.
_SCHEMA_LOCK = 0x646F746576616C73


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema versions that a doteval knows, and the directory of their migrations."""

    versions: tuple[str, ...] = VERSIONS
    directory: Path = _HERE / "versions"

    @property
    def newest(self) -> str:
        return self.versions[-1]


def prepare(database: Database, schema: Schema | None = None) -> None:
    """Make the schema of a new database, and bring an older SQLite file forward.

    Raises StoreVersionError if the database is newer, or an older PostgreSQL database; StoreError if tables
    of something else are in the way, or it cannot be reached.
    """
    schema = schema or Schema()
    with database.read() as connection:
        version = _version(connection)
    if version == schema.newest:
        return
    _check_known(database, schema, version)
    if version is not None and not database.is_sqlite:
        raise StoreVersionError(
            f"the result store {database.location.shown} has schema version {version}, and this doteval uses "
            f"{schema.newest}",
            remedy="Stop what uses it, make a backup, and run: doteval db upgrade",
        )
    upgrade(database, schema)


def upgrade(database: Database, schema: Schema | None = None) -> tuple[str | None, str]:
    """Bring the schema to the newest version. Returns the version before (None: a new database) and after.

    Of an SQLite file that holds experiments a copy is made first, next to it.

    Raises what `prepare` raises, except for older databases.
    """
    schema = schema or Schema()
    if database.is_sqlite:
        _use_write_ahead_log(database)
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        # Again, now that nobody else can be at it.
        version = _version(connection)
        _check_known(database, schema, version)
        if version == schema.newest:
            return version, version
        if version is None:
            _check_free(database, connection)
        elif database.is_sqlite and connection.scalar(select(exists(select(EXPERIMENT.c.id)))):
            _copy(database, version)
        if version is None and schema == Schema():
            _create(connection, schema)
        else:
            migrate(connection, schema)
    return version, schema.newest


def current_version(database: Database) -> str | None:
    """The schema version of a database, None if it has no tables of ours."""
    with database.read() as connection:
        return _version(connection)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)


def _check_known(database: Database, schema: Schema, version: str | None) -> None:
    if version is not None and version not in schema.versions:
        raise StoreVersionError(
            f"the result store {database.location.shown} has schema version {version}, which is newer than this "
            f"doteval knows ({schema.newest})",
            remedy="Use the doteval that wrote it, or a newer one: pip install --upgrade doteval",
        )


def _check_free(database: Database, connection: Connection) -> None:
    taken = sorted({table.name for table in ALL} & set(inspect(connection).get_table_names()))
    if taken:
        raise StoreError(
            f"{database.location.shown} is no result store of this doteval, but has tables named {', '.join(taken)}",
            remedy="Give another file or database; results of doteval 0.22 and before are in another format.",
        )


def _create(connection: Connection, schema: Schema) -> None:
    """The tables of a new database as the code has them; a test compares them with what migrations make."""
    ALL[0].metadata.create_all(connection, tables=ALL)
    version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))
    version.create(connection)
    connection.execute(version.insert().values(version_num=schema.newest))


def migrate(connection: Connection, schema: Schema) -> None:
    """Bring a database of any version, or an empty one, to the newest by the migrations."""
    # Imported here: a new store, or one that is up to date, does not wait for Alembic's import.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(schema.directory).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, schema.newest)


def _use_write_ahead_log(database: Database) -> None:
    """Readers and the writer do not wait for each other then. The file remembers it."""

    def switch() -> None:
        with closing(database.engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA journal_mode = WAL")

    # SQLite does not wait by itself here if another process is just doing the same.
    attempts = Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(SQLITE_WAIT),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )
    with database.translated():
        attempts(switch)


def _copy(database: Database, version: str) -> Path:
    path = database.location.path
    assert path is not None
    copy = path.with_name(f"{path.name}.{version}.backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy

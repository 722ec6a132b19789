"""Creates and upgrades the schema of a result store.

A new database gets the newest schema at once. An older SQLite file is copied and upgraded when it is opened. An older
PostgreSQL database is upgraded only by ``doteval db upgrade``, since others may be using it. A database of a newer
doteval is refused. Begin with `prepare`. To add a version, add a module to ``versions/`` and its number to `VERSIONS`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, exists, inspect, select, text

from doteval.errors import NotFoundError, StoreError, StoreVersionError
from doteval.store.backup import copy_to
from doteval.store.engine import SQLITE_WAIT_SECONDS, Database
from doteval.store.tables import ALL, EXPERIMENT

# Not Alembic's default name: the database may hold the tables of another application that uses Alembic.
VERSION_TABLE = "doteval_version"

# Every schema version in order; the last one is what this doteval uses.
VERSIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
    "0018",
    "0019",
    "0020",
    "0021",
    "0022",
)

# The oldest one that psycopg supports.
_OLDEST_POSTGRES = (10,)

_HERE = Path(__file__).parent

# The key of the advisory lock under which the schema is created in PostgreSQL: the bytes of "dotevals".
_SCHEMA_LOCK = 0x646F746576616C73


@dataclass(frozen=True, slots=True)
class Schema:
    """The schema versions that a doteval knows, and the directory of their migrations."""

    versions: tuple[str, ...] = VERSIONS
    directory: Path = _HERE / "versions"

    @property
    def newest(self) -> str:
        return self.versions[-1]


def prepare(database: Database, schema: Schema | None = None, *, create: bool = True) -> None:
    """Create the schema of a new database, or upgrade an older SQLite file.

    create: whether to create a schema where there is none.

    Raises NotFoundError: there is none, and `create` is False.
    Raises StoreVersionError: the database is newer, or it is an older PostgreSQL database.
    Raises StoreError: tables of another application have the same names, or the database cannot be reached.
    """
    schema = schema or Schema()
    version = _checked_version(database)
    if version == schema.newest:
        return
    if version is None and not create:
        raise _no_tables(database)
    _check_known(database, schema, version)
    if version is not None and not database.is_sqlite:
        raise _older(database, schema, version)
    upgrade(database, schema)


def check_current(database: Database, schema: Schema | None = None) -> None:
    """Check that a database has the newest schema, without changing it.

    Raises NotFoundError: it has no tables of doteval.
    Raises StoreVersionError: its schema is older or newer.
    """
    schema = schema or Schema()
    version = _checked_version(database)
    if version == schema.newest:
        return
    if version is None:
        raise _no_tables(database)
    _check_known(database, schema, version)
    raise _older(database, schema, version)


def upgrade(database: Database, schema: Schema | None = None) -> tuple[str | None, str]:
    """Bring the schema to the newest version. Returns the version before (None for a new database) and after.

    An SQLite file that holds experiments is copied first; the copy is next to it.

    Raises the errors of `prepare`, except that for older databases.
    """
    schema = schema or Schema()
    if database.is_sqlite:
        use_write_ahead_log(database)
    with database.write() as connection:
        if not database.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        # Read again, since nobody else can change it now.
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


def create_for_copy(database: Database, connection: Connection) -> bool:
    """Create the schema in the transaction that copies a store into a database. Returns False if it is there.

    Raises StoreVersionError: the database has another schema version.
    Raises StoreError: tables of another application have the same names.
    """
    _check_server(database)
    if not database.is_sqlite:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
    schema, version = Schema(), _version(connection)
    _check_known(database, schema, version)
    if version is None:
        _check_free(database, connection)
        _create(connection, schema)
    elif version != schema.newest:
        raise _older(database, schema, version)
    return version is None


def current_version(database: Database) -> str | None:
    """The schema version of a database, None if it has no tables of doteval."""
    with database.read() as connection:
        return _version(connection)


def _checked_version(database: Database) -> str | None:
    """The schema version of a database whose server is supported."""
    with database.read() as connection:
        _check_server(database)
        return _version(connection)


def _no_tables(database: Database) -> NotFoundError:
    return NotFoundError(
        f"there are no tables of doteval in {database.location.shown}",
        remedy="Give the store of your experiment with --storage, or run an evaluation first. If there are tables, "
        "the user in the URL may not see them.",
    )


def _older(database: Database, schema: Schema, version: str) -> StoreVersionError:
    return StoreVersionError(
        f"the result store {database.location.shown} has schema version {version}, and this doteval uses "
        f"{schema.newest}",
        remedy="Stop what uses it, make a backup, and run for this store: doteval db upgrade --storage URL",
    )


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        _check_search_path(connection)
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()  # noqa: S608
    return None if found is None else str(found)


def _check_search_path(connection: Connection) -> None:
    """Raises StoreError: the session finds no tables, since another program has used it before by way of a pooler."""
    if connection.dialect.name == "postgresql" and connection.scalar(text("SHOW search_path")) in ("", '""'):
        raise StoreError(
            "PostgreSQL's session has an empty search_path, as pg_dump leaves it in a session that PgBouncer then "
            "gives to others",
            remedy="Run RECONNECT in PgBouncer's database pgbouncer, and let pg_dump connect to PostgreSQL itself.",
        )


def _check_server(database: Database) -> None:
    """Raises StoreError: the server is older than psycopg supports. The database must have been connected to."""
    version = database.engine.dialect.server_version_info
    if not database.is_sqlite and version is not None and tuple(version) < _OLDEST_POSTGRES:
        raise StoreError(
            f"the result store {database.location.shown} is on PostgreSQL {'.'.join(map(str, version))}, and doteval "
            f"needs {_OLDEST_POSTGRES[0]} or newer",
            remedy="Upgrade the server, or use another one.",
        )


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
    """Create the tables as the code defines them. A test compares them with the result of the migrations."""
    ALL[0].metadata.create_all(connection, tables=ALL)
    version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True))
    version.create(connection)
    connection.execute(version.insert().values(version_num=schema.newest))


def migrate(connection: Connection, schema: Schema) -> None:
    """Run the migrations on a database of any version, or on an empty one."""
    # Imported here, since a store that is new or up to date does not need Alembic.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_HERE).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(schema.directory).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, schema.newest)


def use_write_ahead_log(database: Database) -> None:
    """Turn on the write-ahead log, so that readers and the writer do not wait for each other. The file keeps it."""

    from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

    def switch() -> None:
        with closing(database.engine.raw_connection()) as connection:
            connection.cursor().execute("PRAGMA journal_mode = WAL")

    # SQLite's busy handler does not cover this if another process does the same.
    retrying = Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(SQLITE_WAIT_SECONDS),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )
    with database.translated():
        retrying(switch)


def _copy(database: Database, version: str) -> Path:
    path = database.location.path
    assert path is not None
    copy = path.with_name(f"{path.name}.{version}.backup")
    copy_to(database.location, copy)
    return copy

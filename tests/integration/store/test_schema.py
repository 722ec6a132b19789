"""Opening a store: URLs, schema versions, and everything that can prevent it."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, inspect, text
from sqlmodel import SQLModel

from doteval.core.experiments import Counts
from doteval.errors import NotFoundError, StoreError, StoreReadOnlyError, StoreVersionError
from doteval.store import Store, backup, migrations
from doteval.store.engine import Database
from doteval.store.migrations import VERSION_TABLE, VERSIONS, Schema
from doteval.store.url import locate
from tests.support.commands import Commands
from tests.support.store_workload import begin, in_processes, open_and_begin, results, rows
from tests.support.troubleshooting import assert_shown

_NEXT = '''
"""A future version."""
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "{newest}"


def upgrade() -> None:
    op.add_column("experiment", sa.Column("colour", sa.Text()))
'''


@pytest.fixture
def next_schema(tmp_path: Path) -> Schema:
    """The schema of a doteval that is one version ahead."""
    directory = tmp_path / "versions"
    directory.mkdir()
    for module in Schema().directory.glob("v*.py"):
        (directory / module.name).write_text(module.read_text())
    (directory / "v9999_next.py").write_text(_NEXT.format(newest=VERSIONS[-1]))
    return Schema((*VERSIONS, "9999"), directory)


def _version(store: Store) -> str:
    with store._database.read() as connection:
        return str(connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())


def test_the_migrations_create_the_tables_of_the_code(store_url: str) -> None:
    with closing(Database(locate(store_url))) as database, database.write() as connection:
        migrations.migrate(connection, Schema())
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_a_new_database_equals_a_migrated_one(store_url: str) -> None:
    with closing(Database(locate(store_url))) as database:
        with database.write() as connection:
            migrations.migrate(connection, Schema())
        migrated = _shape(database)
        with database.write() as connection:
            everything = MetaData()
            everything.reflect(connection)
            everything.drop_all(connection)
    with Store.open(store_url) as store:
        assert _shape(store._database) == migrated
        assert _version(store) == VERSIONS[-1]


def _shape(database: Database) -> list[Any]:
    """The tables in the database's catalogue. A column that a migration added is last, and has a default."""

    def described(facts: Mapping[str, Any]) -> str:
        options = facts.get("dialect_options", {})
        known = {**facts, "dialect_options": {name: str(option) for name, option in options.items()}}
        return repr(sorted((name, str(fact)) for name, fact in known.items() if name != "default"))

    tables = "PRAGMA table_list" if database.is_sqlite else "SELECT relname, relpersistence FROM pg_class"
    with database.read() as connection:
        found = inspect(connection)
        names = sorted(found.get_table_names())
        listed = sorted(
            tuple(line) for line in connection.execute(text(tables)) if {str(value) for value in line} & set(names)
        )
        return [
            *listed,
            *(
                (
                    name,
                    sorted(described(column) for column in found.get_columns(name)),
                    found.get_pk_constraint(name)["constrained_columns"],
                    sorted(described(index) for index in found.get_indexes(name)),
                    sorted(described(key) for key in found.get_foreign_keys(name)),
                    sorted(str(unique["column_names"]) for unique in found.get_unique_constraints(name)),
                )
                for name in names
            ),
        ]


def test_the_known_versions_are_those_of_the_migrations() -> None:
    script = ScriptDirectory(migrations._HERE, version_locations=[Schema().directory])
    assert tuple(revision.revision for revision in script.walk_revisions())[::-1] == VERSIONS


def test_opening_again_finds_everything(store_url: str) -> None:
    with Store.open(store_url) as store:
        evaluation = begin(store, 3)
        store.results.write(results(evaluation, rows(2)), None)
        raw = store.raw_url
    for url in (store_url, raw):
        with Store.open(url, create=False) as store:
            assert store.evaluations.by_uid(evaluation.uid).counts == Counts(3, done=2)


def test_many_processes_open_a_new_store_at_once(store_url: str, commands: Commands) -> None:
    assert len(set(in_processes(commands, open_and_begin, [(store_url,)] * 6))) == 1


def test_a_newer_schema_is_refused(store_url: str, next_schema: Schema) -> None:
    with Store.open(store_url) as store:
        migrations.upgrade(store._database, next_schema)
    with pytest.raises(StoreVersionError, match="9999, which is newer") as raised:
        Store.open(store_url)
    assert "pip install --upgrade doteval" in str(raised.value.remedy)
    with pytest.raises(StoreVersionError, match="newer"):
        Store.upgrade(store_url)


def test_an_older_sqlite_file_is_copied_and_upgraded(tmp_path: Path, next_schema: Schema) -> None:
    path = tmp_path / "results.db"
    with Store.open(str(path)) as store:
        evaluation = begin(store, 3)
        migrations.prepare(store._database, next_schema)
        assert _version(store) == "9999"
        assert store.evaluations.by_uid(evaluation.uid).counts.total == 3
    copy = tmp_path / f"results.db.{VERSIONS[-1]}.backup"
    # It holds prompts and replies, as the store does.
    assert stat.S_IMODE(copy.stat().st_mode) == stat.S_IMODE(path.stat().st_mode) == 0o600
    with Store.open(str(copy), create=False) as old:
        assert _version(old) == VERSIONS[-1]
        assert old.rows.pending(evaluation.id, 0, 9) == rows(3)


def test_a_copy_of_before_is_replaced_only_by_a_complete_one(
    tmp_path: Path, next_schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the disk is full."""
    copy = tmp_path / f"results.db.{VERSIONS[-1]}.backup"
    copy.write_bytes(b"a copy of before")
    with Store.open(str(tmp_path / "results.db")) as store:
        begin(store, 3)
        with monkeypatch.context() as patched:
            patched.setattr(backup, "_copy_sqlite", full)
            with pytest.raises(StoreError, match="disk is full"):
                migrations.prepare(store._database, next_schema)
        assert _version(store) == VERSIONS[-1]
        assert copy.read_bytes() == b"a copy of before"
        migrations.prepare(store._database, next_schema)
    with Store.open(str(copy), create=False) as old:
        assert _version(old) == VERSIONS[-1]
    assert {each.name for each in tmp_path.glob("*.backup*")} == {copy.name}


def full(location: object, source: Path, part: Path, target: Path) -> None:
    part.write_bytes(b"half")
    raise StoreError("the disk is full")


def test_an_older_sqlite_file_without_experiments_needs_no_copy(tmp_path: Path, next_schema: Schema) -> None:
    with Store.open(str(tmp_path / "results.db")) as store:
        migrations.prepare(store._database, next_schema)
        assert _version(store) == "9999"
    assert list(tmp_path.glob("*.backup")) == []


def test_a_migration_that_fails_changes_nothing(store_url: str, next_schema: Schema) -> None:
    broken = next_schema.directory / "v9999_next.py"
    broken.write_text(broken.read_text() + '    op.execute("SELECT * FROM nowhere")\n')
    with Store.open(store_url) as store:
        with pytest.raises(StoreError):
            migrations.upgrade(store._database, next_schema)
        assert _version(store) == VERSIONS[-1]
        begin(store, 1)


def test_an_older_postgresql_database_waits_for_the_command(postgres_url: str, next_schema: Schema) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 3)
        with pytest.raises(StoreVersionError, match=f"schema version {VERSIONS[-1]}") as raised:
            migrations.prepare(store._database, next_schema)
        assert "doteval db upgrade" in str(raised.value.remedy)
        assert migrations.upgrade(store._database, next_schema) == (VERSIONS[-1], "9999")
        migrations.prepare(store._database, next_schema)
        assert store.evaluations.by_uid(evaluation.uid).counts.total == 3


def test_upgrading_what_is_up_to_date(store_url: str) -> None:
    Store.open(store_url).close()
    assert Store.upgrade(store_url) == (VERSIONS[-1], VERSIONS[-1])


def test_tables_of_another_application_are_left_alone(store_url: str) -> None:
    Store.open(store_url).close()
    with Store.open(store_url) as store, store._database.write() as connection:
        connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
    with pytest.raises(
        StoreError, match="no result store of this doteval, but has tables named attempt, batch_lease, budget_share"
    ):
        Store.open(store_url)


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database at all, but long enough to look like one" * 100)
    with pytest.raises(StoreError, match="not an SQLite database"):
        Store.open(str(path))


def test_commands_that_only_read_create_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a" / "results.db"
    for look in (lambda: Store.open(str(path), create=False), lambda: Store.upgrade(str(path))):
        with pytest.raises(NotFoundError, match=r"there is no result store .*results\.db"):
            look()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        Store.open(f"sqlite://{tmp_path}/file/results.db")


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="it is a directory"):
        Store.open(str(tmp_path))


@contextmanager
def _without_privileges() -> Iterator[None]:
    """Run as a user without root's permissions, which may write everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def reachable_path(tmp_path: Path) -> Path:
    """A directory that another user can enter."""
    for directory in (tmp_path, *tmp_path.parents):
        if directory.owner() == Path("~").expanduser().owner() and directory.stat().st_mode & 0o005 != 0o005:
            directory.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("directory_mode", [0o555, 0o777], ids=["read-only directory", "writable directory"])
def test_a_store_that_may_only_be_read(reachable_path: Path, directory_mode: int) -> None:
    path = reachable_path / "results.db"
    with Store.open(str(path)) as store:
        evaluation = begin(store, 3)
        store.results.write(results(evaluation, rows(2)), None)
    path.chmod(0o444)
    reachable_path.chmod(directory_mode)
    try:
        with _without_privileges(), Store.open(str(path), create=False) as store:
            assert store.evaluations.by_uid(evaluation.uid).counts == Counts(3, done=2)
            assert len(list(store.results.records(evaluation.id))) == 2
            with pytest.raises(StoreReadOnlyError) as refused:
                store.results.write(results(evaluation, rows(3)), None)
            assert_shown("store-read-only", refused.value)
            with pytest.raises(StoreReadOnlyError, match="can be read but not written"):
                store.experiments.begin("another")
    finally:
        reachable_path.chmod(0o755)


def test_a_postgresql_user_who_may_only_read(postgres_url: str) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 2)
    with psycopg.connect(postgres_url, autocommit=True) as other:
        (name,) = other.execute("SELECT current_database()").fetchone() or ("",)
        other.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    with Store.open(postgres_url) as store:
        assert store.evaluations.by_uid(evaluation.uid).counts.total == 2
        with pytest.raises(StoreReadOnlyError):
            store.results.write(results(evaluation, rows(1)), None)


@pytest.mark.parametrize(
    "url", ["postgresql://me:hunter2@127.0.0.1:1/x", "postgresql://me@127.0.0.1:1/x?password=hunter2"]
)
def test_a_server_that_cannot_be_reached_and_a_password_that_stays_hidden(url: str) -> None:
    with pytest.raises(StoreError, match="cannot be reached") as raised:
        Store.open(url)
    shown = f"{raised.value} {raised.value!r}"
    assert "hunter2" not in shown
    assert "127.0.0.1" in shown


def test_a_database_that_does_not_exist(postgres_url: str) -> None:
    with pytest.raises(StoreError, match=r"does not exist|no database of that name"):
        Store.open(postgres_url.replace("/doteval_", "/missing_"))


def test_passwords_are_for_worker_processes_only(postgres_url: str) -> None:
    url = postgres_url.replace("postgres:", "postgres:hunter2", 1) if "postgres:" in postgres_url else postgres_url
    with Store.open(url) as store:
        assert "hunter2" not in store.url + repr(store)
        assert store.raw_url.startswith("postgresql://")


def test_the_default_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store.open() as store:
        begin(store, 1)
        raw = store.raw_url
    assert (tmp_path / ".doteval" / "doteval.db").exists()
    # Worker processes may run elsewhere.
    monkeypatch.chdir("/")
    with Store.open(raw, create=False) as store:
        assert len(store.experiments.overviews()) == 1


def test_the_file_keeps_a_write_ahead_log(tmp_path: Path) -> None:
    Store.open(str(tmp_path / "results.db")).close()
    with closing(sqlite3.connect(tmp_path / "results.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_forked_child_opens_its_own_connections(store: Store) -> None:
    evaluation = begin(store, 2)
    child = os.fork()
    if child == 0:
        try:
            written = store.results.write(results(evaluation, rows(1)), None)
            os._exit(0 if written == 1 else 1)
        except BaseException:  # noqa: BLE001 (reported by the exit code)
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.results.write(results(evaluation, rows(2)), None) == 1
    assert store.evaluations.counts(evaluation.id) == Counts(2, done=2)

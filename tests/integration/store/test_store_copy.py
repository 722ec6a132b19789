"""Copies of whole stores: the same lines and figures, or nothing at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from doteval.errors import NotFoundError, StoreError, StoreVersionError, UsageError
from doteval.store import CopyProgress, Store, WorkerInfo
from doteval.store.engine import Database
from doteval.store.tables import ALL
from doteval.store.url import locate
from tests.support.cli import CommandLine, complete, fill
from tests.support.commands import Commands
from tests.support.pgbouncer import pgbouncer
from tests.support.store_workload import begin, copy_and_die
from tests.support.view_stores import fill_for_view
from tests.support.whole_stores import GONE, LINES, all_lines, fill_every_table

# Those whose sequence SQLite keeps, so that an id is never used again.
FOR_EVER = [table.name for table in ALL if table.dialect_options["sqlite"]["autoincrement"]]
PAIRS = ["sqlite-sqlite", "sqlite-postgresql", "postgresql-sqlite", "postgresql-postgresql"]


@pytest.fixture(params=[PAIRS[0], *(pytest.param(pair, marks=pytest.mark.variant) for pair in PAIRS[1:])])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """The URLs of an empty source and of a missing or empty target."""
    kinds = request.param.split("-")
    fixtures = {"source": "postgres_url", "target": "other_postgres_url"}
    source, target = (
        f"{tmp_path}/{end}.db" if kind == "sqlite" else request.getfixturevalue(fixtures[end])
        for end, kind in zip(fixtures, kinds, strict=True)
    )
    return source, target


@pytest.fixture
def doteval_(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def ignore(_: CopyProgress) -> None:
    """Progress that nobody looks at."""


def next_ids(store: Store) -> dict[str, int]:
    """The id that each table gives to its next line."""
    found = {}
    with store._database.write() as connection:
        for table in ALL:
            if table.autoincrement_column is not None and store._database.is_sqlite:
                query = text("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = :name), 0) + 1")
                found[table.name] = connection.execute(query, {"name": table.name}).scalar_one()
            elif table.autoincrement_column is not None:
                query = text("SELECT nextval(pg_get_serial_sequence(:name, 'id'))")
                found[table.name] = connection.execute(query, {"name": table.name}).scalar_one()
    return found


def test_every_line_of_every_table_is_copied(urls: tuple[str, str]) -> None:
    source, target = urls
    seen = []
    with Store.open(source) as store:
        fill_every_table(store)
        before = all_lines(store)
        copied = store.copy_into(target, seen.append)
    assert {name: len(lines) for name, lines in before.items()} == {table.name: LINES for table in ALL}
    assert [(table.name, table.lines) for table in copied.tables] == [(table.name, LINES) for table in ALL]
    assert len({table.checksum for table in copied.tables}) == len(ALL)
    assert [each.table for each in seen if each.checking and not each.done] == [table.name for table in ALL]
    with Store.open(target, create=False, upgrade=False) as copy:
        assert all_lines(copy) == before
        found = next_ids(copy)
        assert {name: number for name, number in found.items() if name in FOR_EVER} == dict.fromkeys(
            FOR_EVER, GONE + 1 if Path(source).exists() else LINES + 1
        )
        again = copy.copy_into(f"{target}.again", ignore) if Path(target).exists() else None
    # The same lines have the same checksum, wherever they are.
    assert again is None or again.tables == copied.tables


def test_a_copy_goes_through_a_pooler_in_transaction_mode(postgres_url: str, tmp_path: Path) -> None:
    source = str(tmp_path / "source.db")
    with pgbouncer(postgres_url) as url, Store.open(source) as store:
        fill_every_table(store)
        store.copy_into(url, ignore)
        with Store.open(url, create=False) as copy:
            assert copy.copy_into(str(tmp_path / "back.db"), ignore).tables
            assert all_lines(copy) == all_lines(store)


COMMANDS = (
    ("list",),
    ("show", "base", "--full"),
    ("show", "base", "--row", "78"),
    ("show", "alpha", "--errors"),
    ("usage", "base"),
    ("usage", "alpha", "--by", "worker"),
    ("compare", "base", "new"),
    ("compare", "base", "new", "--matrix"),
    ("history", "judge"),
    ("baseline", "show"),
    ("status", "running"),
    ("tag", "new"),
)


def test_every_command_says_the_same_of_the_copy(urls: tuple[str, str], doteval_: CommandLine, tmp_path: Path) -> None:
    source, target = urls
    with Store.open(source) as store:
        fill_for_view(store)
    local = tmp_path / "alpha.db"
    fill(local)
    refused = doteval_("db", "copy", str(local), target)
    assert refused.code == 2
    assert "1 experiment is running" in refused.err
    assert "doteval cancel alpha" in refused.err
    snapshot = doteval_("db", "copy", str(local), str(tmp_path / "snapshot.db"), "--running")
    assert snapshot.code == 0, snapshot.err
    assert "alpha is running" in snapshot.err
    assert "DOTEVAL_STORAGE" not in snapshot.out
    complete(local)

    ran = doteval_("db", "copy", source, target, "--json")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["lines"] == sum(table["lines"] for table in document["tables"])
    assert document["running"] == []
    for command in COMMANDS:
        if "alpha" not in command:
            assert said(doteval_, command, source) == said(doteval_, command, target), command
    again = doteval_("db", "copy", source, target)
    assert again.code == 2
    assert re.search(r"is not empty: it holds 5 experiments \(base, new, running, \.\.\.\)", again.err)

    shown = doteval_("db", "copy", str(local), str(tmp_path / "beta.db"))
    assert shown.code == 0, shown.err
    assert re.search(r"^result +7 +[0-9a-f]{16}$", shown.out, re.MULTILINE)
    for command in COMMANDS:
        if "alpha" in command:
            assert said(doteval_, command, str(local)) == said(doteval_, command, str(tmp_path / "beta.db"))


def said(doteval_: CommandLine, command: tuple[str, ...], storage: str) -> Any:
    ran = doteval_(*command, "--json", "--storage", storage)
    assert ran.code == 0, ran.err
    # Where the store is, how long ago something was, and the time worked of an evaluation that is running.
    passing = "storage|elapsed_seconds|heard_of_seconds_ago" + ("|seconds" if command[0] == "status" else "")
    return re.sub(rf'"({passing})": .*', "", ran.out)


@pytest.mark.parametrize("checking", [False, True])
def test_a_copy_that_is_interrupted_leaves_nothing(urls: tuple[str, str], *, checking: bool) -> None:
    source, target = urls

    def interrupt(progress: CopyProgress) -> None:
        if (progress.table, progress.checking) == ("result", checking) and progress.done:
            raise KeyboardInterrupt

    with Store.open(source) as store:
        fill_every_table(store)
        with pytest.raises(KeyboardInterrupt):
            store.copy_into(target, interrupt)
        assert not Path(target).exists()
        with pytest.raises(NotFoundError):
            Store.open(target, create=False)
        store.copy_into(target, ignore)
        with Store.open(target) as copy:
            assert all_lines(copy) == all_lines(store)


@pytest.mark.slow("a process that is killed; the test above interrupts it")
@pytest.mark.parametrize("checking", [False, True])
def test_a_copy_that_is_killed_leaves_nothing(urls: tuple[str, str], commands: Commands, *, checking: bool) -> None:
    source, target = urls
    with Store.open(source) as store:
        fill_every_table(store)
        with Path(os.devnull).open("w") as nothing:
            process = commands.start(
                "tests.support.store_workload",
                [copy_and_die.__name__, json.dumps([source, target, "result", checking])],
                directory=Path(__file__).parents[3],
                environment=os.environ,
                stdout=nothing,
                stderr=nothing,
            )
            assert process.wait(120) == -signal.SIGKILL
        with pytest.raises(NotFoundError, match="there are no tables of doteval"):
            Store.open(target, create=False)
        store.copy_into(target, ignore)
        with Store.open(target) as copy:
            assert all_lines(copy) == all_lines(store)


def test_a_target_that_holds_something_is_refused(urls: tuple[str, str]) -> None:
    source, target = urls
    with Store.open(source) as store:
        begin(store, 3)
        with pytest.raises(UsageError, match="cannot be copied into itself"):
            store.copy_into(source, ignore)
        with Store.open(target) as other:
            other.workers.begin(WorkerInfo("w", "h", 1))
        with pytest.raises(UsageError, match="no experiment, but lines in 1 table: worker"):
            store.copy_into(target, ignore)
        with Store.open(target) as other:
            with other._database.write() as connection:
                connection.execute(text("DELETE FROM worker"))
            store.copy_into(target, ignore)
            assert [line.experiment.name for line in other.experiments.overviews()] == ["an experiment"]


def test_stores_of_another_version_are_refused(urls: tuple[str, str], doteval_: CommandLine) -> None:
    source, target = urls
    with Store.open(source) as store:
        begin(store)
        _set_version(target, "0020")
        with pytest.raises(StoreVersionError, match="has schema version 0020") as older:
            store.copy_into(target, ignore)
        assert "doteval db upgrade" in str(older.value.remedy)
        _set_version(target, "9999")
        with pytest.raises(StoreVersionError, match="newer than this doteval"):
            store.copy_into(target, ignore)
    refused = doteval_("db", "copy", target, source)
    assert refused.code == 4
    _set_version(target, "0020")
    refused = doteval_("db", "copy", target, source)
    assert refused.code == 4
    assert "has schema version 0020" in refused.err
    assert Store.versions(target)[0] == "0020"


def test_a_copy_that_is_not_the_same_is_not_kept(tmp_path: Path) -> None:
    source, target = str(tmp_path / "source.db"), str(tmp_path / "target.db")
    with Store.open(source) as store, Store.open(target) as other:
        begin(store, 3)
        with other._database.write() as connection:
            connection.execute(
                text(
                    'CREATE TRIGGER worse AFTER INSERT ON "row" WHEN new.row_index = 1 '
                    "BEGIN UPDATE \"row\" SET content = content || ' ' WHERE row_index = 1; END"
                )
            )
        with pytest.raises(StoreError, match=r"the table row of .* is not what was read from"):
            store.copy_into(target, ignore)
        assert other.experiments.overviews() == []


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """The URL of a role with the rights of a worker."""
    with psycopg.connect(postgres_url, autocommit=True) as admin:
        admin.execute("CREATE ROLE doteval_worker LOGIN")
        Store.open(postgres_url).close()
        admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO doteval_worker")
        admin.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO doteval_worker")
        yield re.sub(r"//[^@]*@", "//doteval_worker@", postgres_url)
        admin.execute("DROP OWNED BY doteval_worker CASCADE")
        admin.execute("DROP ROLE doteval_worker")


def test_a_role_that_may_not_set_ids_is_refused_at_once(tmp_path: Path, role: str) -> None:
    with Store.open(str(tmp_path / "source.db")) as store:
        begin(store, 3)
        with pytest.raises(StoreError, match="the role doteval_worker may not set the sequences of ids"):
            store.copy_into(role, ignore)


def _set_version(url: str, version: str) -> None:
    if not url.startswith("/") or not Path(url).exists():
        with contextlib.suppress(StoreVersionError):
            Store.open(url).close()
    with contextlib.closing(Database(locate(url))) as database, database.write() as connection:
        connection.execute(text("UPDATE doteval_version SET version_num = :version"), {"version": version})

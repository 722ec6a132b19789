"""Schema versions, upgrades and backups of a store."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from doteval.core.experiments import EvaluationSpec
from doteval.core.results import Row
from doteval.errors import NotFoundError, StoreError, UsageError
from doteval.store import Store


def filled(store: Store, rows: int) -> None:
    evaluation = store.evaluations.begin(store.experiments.begin("kept"), EvaluationSpec("e.py", "eval_it", ("n",)))
    store.rows.add(evaluation.id, [Row(index, f"key{index}", {"n": index}) for index in range(rows)])
    store.rows.set_total(evaluation.id, rows, complete=True, fingerprint=None)


def test_versions_before_and_after_an_upgrade(store_url: str) -> None:
    if store_url.startswith("postgresql"):
        before, newest = Store.versions(store_url)
        assert before is None
        assert Store.upgrade(store_url) == (None, newest)
    else:
        with pytest.raises(NotFoundError):
            Store.versions(store_url)
        Store.open(store_url).close()
        newest = Store.versions(store_url)[1]
    assert Store.versions(store_url) == (newest, newest)
    assert Store.upgrade(store_url) == (newest, newest)


def test_a_copy_made_while_others_write_is_whole(
    request: pytest.FixtureRequest, store: Store, store_url: str, tmp_path: Path, postgres_programs: Path
) -> None:
    filled(store, 1000)
    (evaluation,) = store.evaluations.running()
    stop = threading.Event()

    def write() -> None:
        index = 1000
        while not stop.is_set():
            store.rows.add(evaluation.id, [Row(index, f"key{index}", {"n": index})])
            index += 1

    writer = threading.Thread(target=write)
    writer.start()
    target = tmp_path / "copy"
    try:
        Store.back_up(store_url, target)
    finally:
        stop.set()
        writer.join()
    assert target.stat().st_mode & 0o077 == 0
    assert list(tmp_path.glob("*.part")) == []
    restored = request.getfixturevalue("other_postgres_url") if store_url.startswith("postgresql") else str(target)
    if restored != str(target):
        subprocess.run([postgres_programs / "pg_restore", f"--dbname={restored}", target], check=True)
    with Store.open(restored, create=False) as copy:
        (found,) = copy.evaluations.running()
        assert found.counts.total == 1000
        indexes = [row.index for row in copy.rows.pending(found.id, 0, 10**9)]
    assert indexes == list(range(len(indexes)))
    assert len(indexes) >= 1000


_PASSWORD = "hush hush/%"


@pytest.fixture
def password_role(postgres_server: str, postgres_url: str) -> Iterator[str]:
    """The name of a role that owns the database, and that the server lets in by `_PASSWORD` only."""
    database = make_url(postgres_url).database
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        (shown,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(shown)
        if not rules.is_file():
            pytest.skip("the rules of the PostgreSQL server are not on this machine")
        before = rules.read_text()
        connection.execute(f"CREATE ROLE doteval_guarded LOGIN PASSWORD '{_PASSWORD}'")
        connection.execute(f'ALTER DATABASE "{database}" OWNER TO doteval_guarded')
        try:
            guarded = "local all doteval_guarded scram-sha-256\nhost all doteval_guarded all scram-sha-256\n"
            rules.write_text(guarded + before)
            connection.execute("SELECT pg_reload_conf()")
            yield "doteval_guarded"
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
            connection.execute("DROP ROLE doteval_guarded")
            connection.execute(f'CREATE DATABASE "{database}"')


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"connect_timeout": "7", "application_name": "nightly copy", "prepare_threshold": "none"},
        {"target_session_attrs": "read-write", "options": "-c statement_timeout=50s", "sslmode": "prefer"},
        {"password": _PASSWORD},
    ],
    ids=["plain", "driver options", "options with spaces", "password as an option"],
)
def test_a_store_with_a_password_is_copied_and_no_command_line_shows_it(
    postgres_url: str,
    password_role: str,
    other_postgres_url: str,
    tmp_path: Path,
    postgres_programs: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
) -> None:
    def url(password: str) -> str:
        inside = {} if "password" in options else {"password": password}
        named = make_url(postgres_url).set(username=password_role, **inside).update_query_dict(options)
        return named.render_as_string(hide_password=False)

    guarded = url(_PASSWORD)
    with Store.open(guarded) as store:
        filled(store, 10)
    (tmp_path / "bin").mkdir()
    seen = tmp_path / "bin" / "seen"
    spy = tmp_path / "bin" / "pg_dump"
    spy.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >> {seen}\nexec {postgres_programs / "pg_dump"} "$@"\n')
    spy.chmod(0o700)
    monkeypatch.setenv("PATH", f"{spy.parent}{os.pathsep}{os.environ['PATH']}")
    Store.back_up(guarded, tmp_path / "copy")
    assert "--dbname=" in seen.read_text()
    assert "hush" not in seen.read_text()
    subprocess.run(
        [postgres_programs / "pg_restore", "--no-owner", f"--dbname={other_postgres_url}", tmp_path / "copy"],
        check=True,
    )
    with Store.open(other_postgres_url, create=False) as copy:
        (found,) = copy.evaluations.running()
        assert found.counts.total == 10
    if "password" not in options:
        # The server does ask for the password.
        with pytest.raises(StoreError, match="password authentication failed"):
            Store.back_up(url("wrong"), tmp_path / "other")


def test_a_passphrase_that_pg_dump_cannot_get_is_refused(tmp_path: Path, postgres_programs: Path) -> None:
    with pytest.raises(StoreError, match="sslpassword") as refused:
        Store.back_up("postgresql://a:b@127.0.0.1:1/x?sslpassword=hush-hush", tmp_path / "copy")
    assert "hush-hush" not in str(refused.value)


def test_a_copy_overwrites_nothing(store: Store, store_url: str, tmp_path: Path, postgres_programs: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        Store.back_up(store_url, target)
    assert target.read_text() == "mine"
    with pytest.raises(UsageError, match="cannot be written"):
        Store.back_up(store_url, tmp_path / "nowhere" / "copy")


def test_an_error_of_pg_dump_is_shown_without_the_password(tmp_path: Path, postgres_programs: Path) -> None:
    with pytest.raises(StoreError) as refused:
        Store.back_up("postgresql://someone:hush-hush@127.0.0.1:1/nothing", tmp_path / "copy")
    assert "127.0.0.1" in refused.value.message
    assert "hush-hush" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_a_missing_pg_dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreError, match="pg_dump"):
        Store.back_up("postgresql://someone@127.0.0.1:1/nothing", tmp_path / "copy")

"""What a result store says when PostgreSQL refuses a role, and that the line which it names helps."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from doteval.errors import NotFoundError, StoreError, StoreReadOnlyError
from doteval.store import Store
from tests.support.cli import CommandLine
from tests.support.store_workload import begin, results, rows


@pytest.fixture
def role(postgres_url: str) -> Iterator[str]:
    """A role that may log in, and has no rights."""
    name = f"role_{secrets.token_hex(4)}"
    administer(postgres_url, f"CREATE ROLE {name} LOGIN")
    administer(postgres_url, "REVOKE ALL ON SCHEMA public FROM public")
    yield name
    administer(postgres_url, f"DROP OWNED BY {name} CASCADE")
    administer(postgres_url, f"DROP ROLE {name}")


@pytest.fixture
def doteval_(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.chdir(tmp_path)
    return CommandLine(capsys)


def administer(url: str, statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as admin:
        for statement in statements.split(";"):
            admin.execute(statement.encode())


def url_of(postgres_url: str, role: str) -> str:
    return make_url(postgres_url).set(username=role).render_as_string(hide_password=False)


def statements_of(error: StoreError) -> str:
    """The statements that the remedy tells an administrator to run."""
    assert error.remedy is not None
    found = re.search(r"run: (GRANT .*)", error.remedy)
    assert found is not None, error.remedy
    return found[1]


@pytest.mark.parametrize("granted", ["", "GRANT USAGE ON SCHEMA public TO {role}"])
def test_a_role_that_may_not_create_tables(postgres_url: str, role: str, granted: str) -> None:
    if granted:
        administer(postgres_url, granted.format(role=role))
    with pytest.raises(StoreError, match=f"the role {role} may not create its tables") as raised:
        Store.open(url_of(postgres_url, role))
    administer(postgres_url, statements_of(raised.value))
    with Store.open(url_of(postgres_url, role)) as store:
        evaluation = begin(store, 3)
        assert store.results.write(results(evaluation, rows(3)), None) == 3


def test_a_role_that_may_not_read_and_one_that_may_not_write(postgres_url: str, role: str) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 4)
    url = url_of(postgres_url, role)
    administer(postgres_url, f"GRANT USAGE ON SCHEMA public TO {role}")
    with pytest.raises(StoreError, match=f"the role {role} may not read its tables") as unread:
        Store.open(url, create=False)
    administer(postgres_url, statements_of(unread.value))
    with Store.open(url) as store:
        assert store.evaluations.by_uid(evaluation.uid).counts.total == 4
        for attempt in (lambda: store.results.write(results(evaluation, rows(2)), None), store.check_writable):
            with pytest.raises(StoreReadOnlyError, match=f"the role {role} has no right to") as unwritten:
                attempt()
        administer(postgres_url, statements_of(unwritten.value))
        assert store.results.write(results(evaluation, rows(2)), None) == 2
        # Sequences number new lines.
        assert store.experiments.begin("another").name == "another"


def test_commands_that_read_need_no_right_to_write(postgres_url: str, role: str, doteval_: CommandLine) -> None:
    with Store.open(postgres_url) as store:
        evaluation = begin(store, 3, name="alpha")
        store.results.write(results(evaluation, rows(3)), None)
    administer(
        postgres_url,
        f"GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}",
    )
    url = url_of(postgres_url, role)
    commands = [
        ("list",),
        ("show", "alpha"),
        ("show", "alpha", "--full"),
        ("show", "alpha", "--errors"),
        ("status", "alpha"),
        ("usage", "alpha"),
        ("show", "alpha", "--json"),
    ]
    for command in commands:
        ran = doteval_(*command, "--storage", url)
        assert (ran.code, ran.err) == (0, ""), command
    assert "3/3" in doteval_("list", "--storage", url).out
    ran = doteval_("rename", "alpha", "beta", "--storage", url)
    assert ran.code == 4
    assert f"the role {role} has no right to" in ran.err


def test_an_empty_database_stays_empty_when_it_is_only_read(postgres_url: str) -> None:
    with pytest.raises(NotFoundError, match="no tables of doteval"):
        Store.open(postgres_url, create=False)
    assert Store.versions(postgres_url)[0] is None


@pytest.mark.parametrize(
    ("change", "more", "said", "remedy"),
    [
        ("ALTER ROLE {role} NOLOGIN", "", "is not permitted to log in", "ALTER ROLE {role} LOGIN"),
        (
            "REVOKE CONNECT ON DATABASE {database} FROM public",
            "",
            "permission denied for database",
            "GRANT CONNECT ON DATABASE {database} TO {role}",
        ),
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "", "too many connections", "raise max_connections"),
        ("SELECT 1", "?sslmode=nonsense", "invalid sslmode value", "Correct this parameter"),
    ],
)
def test_refused_connections(postgres_url: str, role: str, change: str, more: str, said: str, remedy: str) -> None:
    names = {"role": role, "database": make_url(postgres_url).database or ""}
    administer(postgres_url, change.format(**names))
    administer(postgres_url, f"GRANT USAGE, CREATE ON SCHEMA public TO {role}")
    url = url_of(postgres_url, role)
    url += more.replace("?", "&") if "?" in url else more
    with pytest.raises(StoreError, match=said) as raised:
        Store.open(url)
    assert raised.value.remedy is not None
    assert remedy.format(**names) in raised.value.remedy


def test_a_role_and_a_database_that_do_not_exist(postgres_url: str) -> None:
    with pytest.raises(StoreError, match='role "nobody_here" does not exist') as raised:
        Store.open(url_of(postgres_url, "nobody_here"))
    assert "CREATE ROLE nobody_here LOGIN" in str(raised.value.remedy)
    missing = make_url(postgres_url).set(database="missing_one").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match='database "missing_one" does not exist') as raised:
        Store.open(missing)
    assert raised.value.remedy == "Create it first: createdb missing_one"


def test_a_server_that_is_too_old(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doteval.store.migrations._OLDEST_POSTGRES", (99,))
    with pytest.raises(StoreError, match=r"is on PostgreSQL \d+[.\d]*, and doteval needs 99 or newer"):
        Store.open(postgres_url)

"""The database for the URL or path that a user gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from doteval.errors import StoreError
from doteval.store.url import locate


@pytest.mark.parametrize(
    ("url", "path"),
    [
        (None, ".doteval/doteval.db"),
        ("results.db", "results.db"),
        ("a/b.db", "a/b.db"),
        ("sqlite://results.db", "results.db"),
        ("sqlite://a/b.db", "a/b.db"),
        ("sqlite://./a/../b.db", "b.db"),
        ("sqlite:///results.db", "results.db"),
        ("/tmp/x.db", "/tmp/x.db"),
        ("sqlite:///tmp/x.db", "/tmp/x.db"),
        ("sqlite:////tmp/x.db", "/tmp/x.db"),
        ("sqlite://100% ü?.db", "100% ü?.db"),
    ],
)
def test_files(url: str | None, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    location = locate(url)
    assert location.path == tmp_path / path
    assert locate(location.raw).path == location.path


def test_a_home_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locate("sqlite://~/x.db").path == tmp_path / "x.db"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_postgresql(scheme: str) -> None:
    location = locate(f"{scheme}://me:p%40ss@host:5433/name?sslmode=require")
    assert location.path is None
    assert location.url.drivername == "postgresql+psycopg"
    assert location.raw == "postgresql://me:p%40ss@host:5433/name?sslmode=require"
    assert location.shown == "postgresql://me:***@host:5433/name?sslmode=require"


@pytest.mark.parametrize(
    ("url", "shown", "host", "port"),
    [
        ("a:5432,b:5433/x?sslmode=require", "a:5432,b:5433/x?sslmode=require", "a,b", "5432,5433"),
        ("me:p%40,ss@a,b:5433/x", "me:***@a,b:5433/x", "a,b", ",5433"),
        ("me:pass@[::1]:5432,[::2]/x", "me:***@[::1]:5432,[::2]/x", "::1,::2", "5432,"),
        ("me:pass@/x?host=a:1&host=b:2", "me:***@a:1,b:2/x", "a,b", "1,2"),
        ("me@/x?host=a,b&port=5433", "me@a:5433,b:5433/x", "a,b", "5433,5433"),
        ("a,b?sslpassword=secret", "a,b?sslpassword=%2A%2A%2A", "a,b", None),
        ("/x?host=/tmp,/run", "/x?host=%2Ftmp%2C%2Frun", "/tmp,/run", None),
    ],
)
def test_postgresql_on_several_servers(url: str, shown: str, host: str, port: str | None) -> None:
    location = locate(f"postgresql://{url}")
    assert location.shown == f"postgresql://{shown}"
    assert (location.url.query["host"], location.url.query.get("port")) == (host, port)
    assert locate(location.raw) == location


def test_the_url_for_programs_of_postgresql() -> None:
    location = locate("postgresql://me:p%40ss@a:5432,b/x?answer_timeout=3&sslmode=require&prepare_threshold=5")
    assert location.for_programs == "postgresql://me@a:5432,b/x?sslmode=require"


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/x",
        "sqlite://",
        "sqlite://:memory:",
        ":memory:",
        "",
        "postgresql://host:port/x",
        "postgresql://a:port,b/x",
        "postgresql://a,,b/x",
        "postgresql:///x?host=a,b&port=1,2,3",
    ],
)
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        locate(url)
    assert raised.value.remedy


HOST = "postgresql://me:hunter2@host/name"


@pytest.mark.parametrize(
    ("url", "said", "remedy"),
    [
        (f"{HOST}?foo=1", r"does not know: foo\n", "doteval docs cli#store-urls"),
        (f"{HOST}?sslmod=require", r"does not know: sslmod\n", "Did you mean .*'sslmode'"),
        # psycopg would take it and end no transaction.
        (f"{HOST}?autocommit=1", r"does not know: autocommit\n", "doteval docs cli#store-urls"),
        (f"{HOST}?connect_timeout=2.5", r"connect_timeout in .* is no whole number: '2.5'", "connect_timeout=10"),
        (f"{HOST}?tcp_user_timeout=20s", r"tcp_user_timeout in .* is no whole number: '20s'", "milliseconds"),
        ("sqlite:///results.db?mode=ro", r"takes none: mode\n", "Leave out"),
        ("sqlite://a/b.db?timeout=5&cache=shared", r"takes none: timeout\n", "Leave out"),
    ],
)
def test_parameters_that_are_refused(url: str, said: str, remedy: str) -> None:
    with pytest.raises(StoreError, match=said) as raised:
        locate(url)
    assert raised.value.remedy is not None
    assert re.search(remedy, raised.value.remedy)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "query", ["prepare_threshold=none", "prepare_threshold=0", "connect_timeout=5&sslmode=require"]
)
def test_parameters_that_are_taken(query: str) -> None:
    assert locate(f"{HOST}?{query}").raw == f"{HOST}?{query}"

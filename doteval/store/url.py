"""Reads the URL or path that a user gives for a result store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from doteval.errors import StoreError

DEFAULT_PATH = Path(".doteval/doteval.db")

_FORMS = "Give a file (sqlite://results.db) or a PostgreSQL database (postgresql://user@host/name)."


@dataclass(frozen=True, slots=True)
class Location:
    """A database by its URL and, for SQLite, the absolute path of its file."""

    url: URL
    path: Path | None = None

    @property
    def raw(self) -> str:
        """The URL with its password, for worker processes. `locate` turns it into the same location."""
        return self._written(self.url, hide_password=False)

    @property
    def shown(self) -> str:
        """The URL with passwords hidden, for messages."""
        hidden = {key: "***" if "password" in key else value for key, value in self.url.query.items()}
        return self._written(self.url.set(query=hidden), hide_password=True)

    def _written(self, url: URL, *, hide_password: bool) -> str:
        if self.path is not None:
            return f"sqlite:///{self.path}"
        # Without the driver, which doteval chooses.
        return url.set(drivername="postgresql").render_as_string(hide_password=hide_password)


def locate(url: str | None) -> Location:
    """The location that a user means.

    None is ``.doteval/doteval.db``; a bare path or ``sqlite://path`` is a file; ``postgresql://…`` is a database that
    psycopg connects to. ``sqlite:///a/b.db`` is the absolute path ``/a/b.db``, as in earlier releases of doteval, and
    ``sqlite:///b.db`` is the file ``b.db`` in this directory, as in SQLAlchemy, since nobody keeps a store in the root
    directory.

    Raises StoreError: it is none of these.

    >>> locate("postgresql://me:secret@host/name").shown
    'postgresql://me:***@host/name'
    """
    if url is None:
        return _file(DEFAULT_PATH)
    scheme, separator, rest = url.partition("://")
    if not separator:
        return _file(Path(url))
    if scheme == "sqlite":
        bare = rest.lstrip("/")
        return _file(Path(bare) if rest == f"/{bare}" and "/" not in bare else Path(rest))
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            parsed = make_url(f"postgresql+psycopg://{rest}")
        except (ArgumentError, ValueError):
            raise StoreError("the PostgreSQL URL of the result store cannot be read", remedy=_FORMS) from None
        return Location(parsed)
    raise StoreError(f"a result store cannot be kept in {scheme!r}", remedy=_FORMS)


def _file(path: Path) -> Location:
    if path.name in ("", ":memory:"):
        raise StoreError("the result store needs a file: worker processes share it", remedy=_FORMS)
    # os.path.abspath also normalizes "//a/../b".
    absolute = Path(os.path.abspath(path.expanduser()).replace("//", "/"))  # noqa: PTH100
    return Location(URL.create("sqlite", database=str(absolute)), absolute)

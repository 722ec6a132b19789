"""Where a result store is: what users write, made into a database URL."""

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
    """A database and, if it is SQLite, the absolute path of its file."""

    url: URL
    path: Path | None = None

    @property
    def raw(self) -> str:
        """The URL with its password, for worker processes; `locate` gives the same location for it."""
        return self._written(self.url, hide_password=False)

    @property
    def shown(self) -> str:
        """The URL for messages: passwords hidden."""
        hidden = {key: "***" if "password" in key else value for key, value in self.url.query.items()}
        return self._written(self.url.set(query=hidden), hide_password=True)

    def _written(self, url: URL, *, hide_password: bool) -> str:
        if self.path is not None:
            return f"sqlite:///{self.path}"
        # Without the driver, which is ours to choose.
        return url.set(drivername="postgresql").render_as_string(hide_password=hide_password)


def locate(url: str | None) -> Location:
    """The location that a user means.

    None is ``.doteval/doteval.db``; a bare path or ``sqlite://path`` a file; ``postgresql://…`` a
    database, through psycopg. ``sqlite:///a/b.db`` is the absolute path ``/a/b.db``, as it always was
    in doteval, and ``sqlite:///b.db`` the file ``b.db`` here, as in SQLAlchemy: nobody keeps a store in
    the root directory.

    Raises StoreError for anything else.
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
    # Through os.path: it also folds "//a/../b".
    absolute = Path(os.path.abspath(path.expanduser()).replace("//", "/"))  # noqa: PTH100
    return Location(URL.create("sqlite", database=str(absolute)), absolute)

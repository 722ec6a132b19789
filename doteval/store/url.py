"""Reads the URL or path that a user gives for a result store."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from doteval.core.plugins import did_you_mean
from doteval.errors import StoreError

DEFAULT_PATH = Path(".doteval/doteval.db")

# Parameters of a PostgreSQL URL that PostgreSQL's own programs do not know.
OWN_PARAMETERS = ("answer_timeout", "prepare_threshold")

_FORMS = "Give a file (sqlite://results.db) or a PostgreSQL database (postgresql://user@host/name)."


# Parameters of libpq that are whole numbers. It checks them when it connects, some of them only over TCP.
_NUMBERS = (
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
)


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

    @property
    def for_programs(self) -> str:
        """The URL for PostgreSQL's own programs, without its password, which does not belong on a command line."""
        url = self.url.difference_update_query([*OWN_PARAMETERS, "password"])
        address, mark, query = self._written(url._replace(password=None), hide_password=False).partition("?")
        # SQLAlchemy writes a space as a plus sign, which PostgreSQL's own programs take for one.
        return address + mark + query.replace("+", "%20")

    def _written(self, url: URL, *, hide_password: bool) -> str:
        if self.path is not None:
            return f"sqlite:///{self.path}"
        # Without the driver, which doteval chooses.
        url = url.set(drivername="postgresql")
        hosts = str(url.query.get("host", "")).split(",")
        if len(hosts) == 1 or any("/" in host for host in hosts):
            return url.render_as_string(hide_password=hide_password)
        ports = str(url.query.get("port", "")).split(",")
        bare = url.difference_update_query(["host", "port"]).render_as_string(hide_password=hide_password)
        scheme, _, rest = bare.partition("://")
        end = _end_of_authority(rest)
        shown = ",".join(_host_and_port(host, port) for host, port in zip_longest(hosts, ports, fillvalue=""))
        return f"{scheme}://{rest[:end]}{shown}{rest[end:]}"


def locate(url: str | None) -> Location:
    """The location that a user means.

    None is ``.doteval/doteval.db``; a bare path or ``sqlite://path`` is a file; ``postgresql://…`` is a database that
    psycopg connects to, also one on several servers: ``postgresql://a:5432,b:5433/name``. ``sqlite:///a/b.db`` is the
    absolute path ``/a/b.db``, as in earlier releases of doteval, and ``sqlite:///b.db`` is the file ``b.db`` in this
    directory, as in SQLAlchemy, since nobody keeps a store in the root directory.

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
        if parameter := re.search(r"\?([a-z_]+)=[^?/]*\Z", rest):
            raise StoreError(
                f"the URL of the SQLite store has a parameter, and takes none: {parameter[1]}",
                remedy="Leave out what begins with the question mark.",
            )
        bare = rest.lstrip("/")
        return _file(Path(bare) if rest == f"/{bare}" and "/" not in bare else Path(rest))
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        try:
            parsed = _postgres_url(rest)
        except (ArgumentError, ValueError):
            raise StoreError("the PostgreSQL URL of the result store cannot be read", remedy=_FORMS) from None
        location = Location(parsed)
        _check_parameters(location)
        return location
    # Files of the earlier doteval, and of dotevals.
    remedy = f"`doteval import {rest or 'DIRECTORY'}` reads its results." if scheme == "json" else _FORMS
    raise StoreError(f"a result store cannot be kept in {scheme!r}", remedy=remedy)


def _postgres_url(rest: str) -> URL:
    """The URL of what follows ``postgresql://``. Several hosts, however they are given, become `host=a,b&port=1,2`.

    Both SQLAlchemy and PostgreSQL's own programs understand that. Raises ArgumentError or ValueError.
    """
    end = _end_of_authority(rest)
    # A password may hold a comma, or an @ that should be written %40.
    user, at, hosts = rest[:end].rpartition("@")
    several = hosts.split(",")
    if len(several) > 1:
        url = make_url(f"postgresql+psycopg://{user}{at}{rest[end:]}")
    else:
        url = make_url(f"postgresql+psycopg://{rest}")
        given = url.query.get("host", ())
        several = list(given) if isinstance(given, tuple) else given.split(",")
    if len(several) < 2:
        return url
    pairs = [_split(host) for host in several]
    ports = [port for _, port in pairs]
    if (own := url.query.get("port")) is not None:
        ports = ",".join([own] if isinstance(own, str) else own).split(",")
        ports *= len(pairs) if len(ports) == 1 else 1
    if len(ports) != len(pairs) or not all(
        host and (not port or int(port)) for (host, _), port in zip(pairs, ports, strict=True)
    ):
        raise ValueError
    url = url.difference_update_query(["port"]) if own is not None else url
    several_ports = {"port": ",".join(ports)} if any(ports) else {}
    return url.update_query_dict({"host": ",".join(host for host, _ in pairs), **several_ports})


def _end_of_authority(rest: str) -> int:
    """The length of ``user:password@hosts`` at the beginning of what follows ``postgresql://``."""
    return next((place for place, character in enumerate(rest) if character in "/?"), len(rest))


def _split(address: str) -> tuple[str, str]:
    """Host and port of ``host:port``, ``host``, ``[::1]:port`` or the directory of a socket."""
    host, colon, port = address.rpartition(":")
    if not colon or address.endswith("]") or "/" in port:
        host, port = address, ""
    return host.removeprefix("[").removesuffix("]"), port


def _host_and_port(host: str, port: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def _check_parameters(location: Location) -> None:
    # Imported here, since the import takes time that commands on SQLite need not spend.
    from psycopg.pq import Conninfo

    known = {*OWN_PARAMETERS, *(each.keyword.decode() for each in Conninfo.get_defaults())}
    where = f"the URL {location.shown}"
    for name, value in location.url.query.items():
        if name not in known:
            raise StoreError(
                f"{where} has a parameter that PostgreSQL's client does not know: {name}",
                remedy=did_you_mean(name, known, "The parameters that are of use: doteval docs cli#store-urls"),
            )
        text = value if isinstance(value, str) else ",".join(value)
        if name in _NUMBERS and not re.fullmatch(r"-?[0-9]{1,9}", text):
            raise StoreError(
                f"{name} in {where} is no whole number: {text!r}",
                remedy="It is in milliseconds." if name == "tcp_user_timeout" else f"Write for example {name}=10.",
            )


def _file(path: Path) -> Location:
    if path.name in ("", ":memory:"):
        raise StoreError("the result store needs a file: worker processes share it", remedy=_FORMS)
    # os.path.abspath also normalizes "//a/../b".
    absolute = Path(os.path.abspath(path.expanduser()).replace("//", "/"))  # noqa: PTH100
    return Location(URL.create("sqlite", database=str(absolute)), absolute)

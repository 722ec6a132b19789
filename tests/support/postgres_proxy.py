"""Addresses of PostgreSQL by way of a proxy that can silence connections."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import make_url

from tests.support.silent_connections import SilentProxy


def address_of(postgres_url: str) -> int | Path:
    """Where a server on this machine listens: its port, or the path of its Unix socket."""
    url = make_url(postgres_url)
    directory = url.query.get("host")
    port = url.port or 5432
    return port if directory is None else Path(str(directory)) / f".s.PGSQL.{port}"


def by_way_of(proxy: SilentProxy, postgres_url: str, **parameters: str) -> str:
    """The URL of the same database by way of a proxy."""
    url = make_url(postgres_url).difference_update_query(["host"]).set(host="127.0.0.1", port=proxy.port)
    return url.update_query_dict(parameters).render_as_string(hide_password=False)

"""Makes SQLAlchemy's engine for a store on PostgreSQL from its URL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, create_engine

from doteval.errors import StoreError
from doteval.store.read_only import read_only_postgres
from doteval.store.url import OWN_PARAMETERS, Location

# The URL may say otherwise. The times are seconds, and milliseconds for tcp_user_timeout: a server that cannot be
# connected to counts as unreachable after 10 s. The others are for what a connection's own bound does not see.
_OPTIONS: dict[str, Any] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
# Less than `DEAD_AFTER_SECONDS`: a worker process whose connections go silent reports again before it counts as dead.
_ANSWER_SECONDS = 10.0


def postgres_engine(location: Location, read_seconds: float | None = None) -> Engine:
    """An engine whose connections give up when the server is silent.

    read_seconds: its transactions cannot write, and its statements end after so many seconds; None if they may write.

    Raises StoreError: a parameter of the URL has no meaning.
    """
    # Imported here, since the driver's import takes time that commands on SQLite need not spend.
    from doteval.store.bounded_connection import Connector

    given = location.url.query
    own = {name: value for name, value in _OPTIONS.items() if name not in given}
    if "," in str(given.get("host", "")) and "target_session_attrs" not in given:
        # Of several servers, one is the primary.
        own["target_session_attrs"] = "read-write"
    # A pooler in transaction mode, such as PgBouncer, has no statement that another connection has prepared.
    own["prepare_threshold"] = _prepare_threshold(given.get("prepare_threshold", "none"), location)
    connector = Connector(_answer_seconds(given.get("answer_timeout"), location))
    engine = create_engine(
        location.url.difference_update_query(OWN_PARAMETERS),
        hide_parameters=True,
        # The connection that was used last is used next, so that a server or pooler may close those that are left over.
        pool_use_lifo=True,
        connect_args=own,
    )
    connector.attach(engine)
    return engine if read_seconds is None else read_only_postgres(engine, read_seconds)


def _prepare_threshold(given: object, location: Location) -> int | None:
    """psycopg's number from a URL; "none" never prepares."""
    if isinstance(given, str) and given.isdecimal():
        return int(given)
    if given == "none":
        return None
    raise StoreError(
        f"prepare_threshold in the URL {location.shown} is neither a number nor none",
        remedy="psycopg prepares a statement on the server after so many executions; none is right for PgBouncer.",
    )


def _answer_seconds(given: object, location: Location) -> float:
    """The seconds of ``answer_timeout`` in a URL."""
    if given is None:
        return _ANSWER_SECONDS
    try:
        seconds = float(str(given))
    except ValueError:
        seconds = 0.0
    if 0.0 < seconds < float("inf"):
        return seconds
    raise StoreError(
        f"answer_timeout in the URL {location.shown} is not a number of seconds",
        remedy="After so many seconds without an answer the server is asked whether it works on the statement.",
    )

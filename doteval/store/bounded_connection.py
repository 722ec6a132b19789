"""Connections to PostgreSQL on which no wait is without a bound.

By itself the driver waits for an answer for ever. The kernel notices when packets are dropped, but not when a proxy or
the server takes them and never answers. So a connection that has heard nothing for a while asks on a second one whether
its session still works on the statement. While it does, the statement may take hours. Otherwise the connection is
closed, and its session is ended on the server: a transaction that stays open there would hold its locks against the
next try.

Imported only for stores on PostgreSQL, since the import of the driver takes time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import psycopg
from psycopg.abc import PQGen
from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidatePoolError

from doteval.core import clocks

Value = TypeVar("Value")

# Seconds for an answer that needs no work: before an idle connection is used again, and while one is opened.
_PING_SECONDS = 5.0
# The server keeps the first 63 bytes of a name, of which the last are our own.
_NAME_LENGTH = 54

# A session that waits for its client has never got the whole statement, or cannot deliver its answer.
_WORKS = """
SELECT 1 FROM pg_stat_activity
WHERE application_name = %s AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Client'
"""
_END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = ANY(%s)"

# What a server reports of itself when it stops to be the primary. PostgreSQL before 14 does not.
_READ_ONLY = ("default_transaction_read_only", "in_hot_standby")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection of psycopg that gives up a statement on which nobody works any more."""

    # Until a `Connector` has set them, and for its own questions.
    _connector: Connector | None = None
    _answer_seconds = _PING_SECONDS
    _name = ""
    _began_read_only = False
    _is_new = True
    # Whether the server may have work with what it is asked.
    _has_work = True

    def begin(self, name: str, connector: Connector, answer_seconds: float) -> None:
        """Ask the connector about statements without an answer from now on. The server knows the session by `name`."""
        self._name, self._connector, self._answer_seconds = name, connector, answer_seconds
        self._began_read_only = self._is_read_only()

    def is_useful(self) -> bool:
        """Whether the connection can be used again: it answers, and its server can be written if it could before."""
        if self._is_new:
            self._is_new = False
            return True
        try:
            with self._answering_within(_PING_SECONDS):
                self.execute("")
                self.rollback()
        except psycopg.Error:
            # The next connection says what is wrong.
            return False
        return self._began_read_only or not self._is_read_only()

    def wait(self, gen: PQGen[Value], *arguments: Any, **named: Any) -> Value:
        try:
            return super().wait(self._bounded(gen), *arguments, **named)
        finally:
            if self.closed and self._connector is not None:
                self._connector.lost(self._name)

    def _bounded(self, gen: PQGen[Value]) -> PQGen[Value]:
        """Pass on what the driver waits for. It wakes up ten times a second, and then sends nothing."""
        try:
            wanted = next(gen)
            heard = clocks.monotonic()
            while True:
                ready = yield wanted
                if not ready and clocks.monotonic() - heard >= self._answer_seconds:
                    if self._connector is None or not self._has_work or not self._connector.works(self._name):
                        # The answer may have come while the connector asked.
                        ready = yield wanted
                        if not ready:
                            self._give_up()
                    heard = clocks.monotonic()
                elif ready:
                    heard = clocks.monotonic()
                wanted = gen.send(ready)
        except StopIteration as end:
            return cast(Value, end.value)

    def _give_up(self) -> None:
        # Whatever else is asked of this connection then fails at once.
        self.pgconn.finish()
        raise psycopg.OperationalError(
            f"the server has not answered for {self._answer_seconds:g} s, and does not work on the statement"
        )

    def _is_read_only(self) -> bool:
        return any(self.info.parameter_status(name) == "on" for name in _READ_ONLY)

    @contextmanager
    def _answering_within(self, seconds: float) -> Iterator[None]:
        """Ask nobody about statements inside the block: the server has no work with them."""
        before = self._answer_seconds
        self._has_work, self._answer_seconds = False, min(seconds, before)
        try:
            yield
        finally:
            self._has_work, self._answer_seconds = True, before


class Connector:
    """Makes the connections of an engine, and knows which sessions of lost ones may still be on the server.

    answer_seconds: how long a statement may be without an answer before the server is asked about it.
    """

    def __init__(self, answer_seconds: float) -> None:
        self._answer_seconds = answer_seconds
        self._parameters: dict[str, Any] = {}
        # By name. Sets are changed atomically.
        self._lost: set[str] = set()

    def attach(self, engine: Engine) -> None:
        """Have an engine connect through this connector, and use no connection that is not useful any more."""

        @event.listens_for(engine, "do_connect")
        def connect(_: Any, __: Any, ___: Any, parameters: dict[str, Any]) -> BoundedConnection:
            self._parameters = parameters
            return self._connect()

        @event.listens_for(engine, "checkout")
        def check(connection: BoundedConnection, _: Any, __: Any) -> None:
            if not connection.is_useful():
                # So are the others that were opened before; none of them is asked.
                raise InvalidatePoolError("a connection is of no use any more")

    def works(self, name: str) -> bool:
        """Whether the server can be asked, and works on a statement of the session `name`."""
        try:
            with BoundedConnection.connect(**self._parameters) as connection:
                return connection.execute(_WORKS, (name,)).fetchone() is not None
        except psycopg.Error:
            return False

    def lost(self, name: str) -> None:
        """Note that a connection is closed, and that its session may hold locks on the server."""
        self._lost.add(name)

    def _connect(self) -> BoundedConnection:
        base = str(self._parameters.get("application_name", "doteval"))[:_NAME_LENGTH]
        name = f"{base} {secrets.token_hex(4)}"
        connection = BoundedConnection.connect(**{**self._parameters, "application_name": name})
        lost = list(self._lost)
        if lost:
            try:
                connection.execute(_END, (lost,))
                connection.commit()
            except psycopg.Error:
                connection.close()
                raise
            self._lost.difference_update(lost)
        connection.begin(name, self, self._answer_seconds)
        return connection

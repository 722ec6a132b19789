"""Replies and leases in a SQLite file, for the worker processes of one machine."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random

from doteval.clients.cache.reply_cache import Answer, Ask, Drop, Operation, Put, Release, Renew, StoredReply, stored_key
from doteval.core import clocks
from doteval.core.liveness import LEASE_SECONDS
from doteval.core.private_files import make_private_file
from doteval.errors import ResourceError

_WAIT_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS reply (
    key BLOB PRIMARY KEY, made_at REAL NOT NULL, expires_at REAL NOT NULL, used_at REAL NOT NULL,
    size INTEGER NOT NULL, content_type TEXT NOT NULL, content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS reply_used_at ON reply (used_at);
CREATE INDEX IF NOT EXISTS reply_expires_at ON reply (expires_at);
CREATE TABLE IF NOT EXISTS lease (key BLOB PRIMARY KEY, owner TEXT NOT NULL, expires_at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS secret (value BLOB NOT NULL);
INSERT INTO secret SELECT randomblob(32) WHERE NOT EXISTS (SELECT 1 FROM secret);
CREATE TABLE IF NOT EXISTS total (size INTEGER NOT NULL);
INSERT INTO total SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM total);
CREATE TRIGGER IF NOT EXISTS reply_added AFTER INSERT ON reply BEGIN UPDATE total SET size = size + NEW.size; END;
CREATE TRIGGER IF NOT EXISTS reply_removed AFTER DELETE ON reply BEGIN UPDATE total SET size = size - OLD.size; END;
"""


def _retrying() -> Retrying:
    return Retrying(
        retry=retry_if_exception_type(sqlite3.OperationalError),
        stop=stop_after_delay(_WAIT_SECONDS),
        wait=wait_random(0.01, 0.1),
        reraise=True,
    )


class SQLiteStorage:
    """A `Storage` in the file at `path`, which is created if it does not exist.

    Replies are kept for `seconds`, and at most `most_bytes` of them: the least recently used are removed first.
    """

    def __init__(self, path: Path, *, seconds: float, most_bytes: int) -> None:
        self._path = path
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._owner = secrets.token_hex(8)
        self._connection: sqlite3.Connection | None = None
        self._secret = b""
        self._used: dict[bytes, float] = {}

    def perform(self, operations: Sequence[Operation]) -> list[Answer]:
        """See `Storage.perform`."""
        try:
            connection = self._connected()
            operations = [replace(operation, key=stored_key(operation.key, self._secret)) for operation in operations]
            answers = self._found(connection, operations)
            if any(answer is None for answer in answers) or len(self._used) > 1000:
                with connection:
                    connection.execute("BEGIN IMMEDIATE")
                    self._note_used(connection)
                    for number, operation in enumerate(operations):
                        if answers[number] is None:
                            answers[number] = self._write(connection, operation)
            return answers
        except (sqlite3.Error, OSError) as error:
            raise ResourceError(
                f"the cache {self._path} cannot be used: {error}", remedy="Delete the file, or use --no-cache."
            ) from error

    def close(self) -> None:
        """Store the times of last use, and close the connection."""
        if self._connection is not None:
            try:
                with self._connection:
                    self._connection.execute("BEGIN IMMEDIATE")
                    self._note_used(self._connection)
            except sqlite3.Error:
                # Only the order in which replies are removed is lost.
                self._used.clear()
            self._connection.close()
            self._connection = None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            make_private_file(self._path)
            # One of an earlier version may be readable by others.
            self._path.chmod(0o600)
            connection = sqlite3.connect(
                self._path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
            # The busy timeout does not apply if another process is switching to WAL at the same moment.
            _retrying()(connection.execute, "PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            (self._secret,) = connection.execute("SELECT value FROM secret").fetchone()
            self._connection = connection
        return self._connection

    def _found(self, connection: sqlite3.Connection, operations: Sequence[Operation]) -> list[Answer]:
        """The replies that are stored, read without blocking writers, but for those that are dropped before."""
        answers: list[Answer] = []
        dropped: set[bytes] = set()
        for operation in operations:
            if isinstance(operation, Drop):
                dropped.add(operation.key)
            if isinstance(operation, Ask) and operation.key not in dropped:
                answers.append(self._look_up(connection, operation))
            else:
                answers.append(None)
        return answers

    def _look_up(self, connection: sqlite3.Connection, ask: Ask) -> StoredReply | None:
        now = clocks.now()
        line = connection.execute(
            "SELECT content_type, content FROM reply WHERE key = ? AND expires_at > ? AND made_at >= ?",
            (ask.key, now, ask.since),
        ).fetchone()
        if line is None:
            return None
        self._used[ask.key] = now
        return StoredReply(*line)

    def _write(self, connection: sqlite3.Connection, operation: Operation) -> Answer:
        match operation:
            case Ask(key):
                # Another process may have stored it since the first look.
                return self._look_up(connection, operation) or self._lease(connection, key)
            case Put(key, reply):
                self._put(connection, key, reply)
                self._release(connection, key)
            case Release(key):
                self._release(connection, key)
            case Drop(key):
                connection.execute("DELETE FROM reply WHERE key = ?", (key,))
            case Renew(key):
                connection.execute(
                    "UPDATE lease SET expires_at = ? WHERE key = ? AND owner = ?",
                    (clocks.now() + LEASE_SECONDS, key, self._owner),
                )
        return None

    def _lease(self, connection: sqlite3.Connection, key: bytes) -> bool:
        now = clocks.now()
        done = connection.execute(
            "INSERT INTO lease VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, "
            "expires_at = excluded.expires_at WHERE lease.expires_at <= ? OR lease.owner = excluded.owner",
            (key, self._owner, now + LEASE_SECONDS, now),
        )
        return done.rowcount == 1

    def _release(self, connection: sqlite3.Connection, key: bytes) -> None:
        connection.execute("DELETE FROM lease WHERE key = ? AND owner = ?", (key, self._owner))

    def _put(self, connection: sqlite3.Connection, key: bytes, reply: StoredReply) -> None:
        now = clocks.now()
        size = len(reply.content) + len(key)
        connection.execute("DELETE FROM reply WHERE key = ? OR expires_at <= ?", (key, now))
        if size > self._most_bytes:
            return
        connection.execute(
            "INSERT INTO reply VALUES (?, ?, ?, ?, ?, ?, ?)",
            (key, now, now + self._seconds, now, size, reply.content_type, reply.content),
        )
        (total,) = connection.execute("SELECT size FROM total").fetchone()
        while total > self._most_bytes:
            oldest = connection.execute("SELECT key, size FROM reply ORDER BY used_at LIMIT 50").fetchall()
            for old, freed in oldest:
                connection.execute("DELETE FROM reply WHERE key = ?", (old,))
                total -= freed
                if total <= self._most_bytes:
                    break

    def _note_used(self, connection: sqlite3.Connection) -> None:
        if self._used:
            connection.executemany(
                "UPDATE reply SET used_at = ? WHERE key = ?", [(used, key) for key, used in self._used.items()]
            )
            self._used.clear()

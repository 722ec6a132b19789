"""Copies a result store while other processes use it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from doteval.errors import StoreError, UsageError
from doteval.store.url import Location

_SHOWN_LINES = 3
_CONNECT_SECONDS = 10


def back_up(location: Location, target: Path) -> None:
    """Copy the store at a location into the file `target`, which must not exist.

    The copy of an SQLite store is another SQLite file, that of a PostgreSQL store an archive for ``pg_restore``. It
    shows one moment, whatever is written meanwhile.

    Raises UsageError: `target` exists or cannot be written.
    Raises StoreError: the store cannot be read, or pg_dump is missing.
    """
    if target.exists():
        raise UsageError(f"{target} exists already", remedy="Give a name that is free, or move the file away.")
    copy_to(location, target)


def copy_to(location: Location, target: Path) -> None:
    """As `back_up`, but a `target` that exists is replaced once the copy is complete."""
    # It is written under another name and then renamed, so that `target` is never half a copy.
    part = target.with_name(f"{target.name}.part")
    try:
        # Only this user may read it, since results may be confidential.
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    except OSError as error:
        raise UsageError(f"{part} cannot be written: {error.strerror}", remedy="Check the path.") from None
    try:
        if location.path is not None:
            _copy_sqlite(location, location.path, part, target)
        else:
            _dump_postgres(location, part)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        # SQLite leaves it where the disk is full.
        part.with_name(f"{part.name}-journal").unlink(missing_ok=True)


def _copy_sqlite(location: Location, source: Path, part: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(source.as_uri() + "?mode=ro", uri=True)) as old,
            closing(sqlite3.connect(part)) as new,
        ):
            old.backup(new)
    except sqlite3.Error as error:
        raise StoreError(
            f"the result store {location.shown} cannot be copied to {target}: {error}",
            remedy="Check the disk and its free space. Nothing is left of the copy.",
        ) from None


def _dump_postgres(location: Location, target: Path) -> None:
    program = shutil.which("pg_dump")
    if program is None:
        raise StoreError(
            "pg_dump, which copies PostgreSQL databases, is not on PATH",
            remedy="Install PostgreSQL's client programs of the server's version, or write an SQLite file in place of "
            "an archive: doteval db copy URL FILE.db --running",
        )
    # The password goes into the environment, since every user can read a command line.
    given = location.url.query
    password = location.url.password or given.get("password")
    if "sslpassword" in given:
        raise StoreError(
            f"pg_dump cannot be given the sslpassword of {location.shown} without showing it to every user",
            remedy="Use a key without a passphrase, or run pg_dump yourself.",
        )
    _check_direct(location, str(password) if password else None)
    environment = {**os.environ, **({"PGPASSWORD": str(password)} if password else {})}
    ran = subprocess.run(
        [program, "--format=custom", f"--file={target}", f"--dbname={location.for_programs}"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        said = "\n".join(f"  {line}" for line in ran.stderr.splitlines()[:_SHOWN_LINES])
        raise StoreError(
            f"pg_dump could not copy {location.shown}:\n{said}",
            remedy="Use a pg_dump that is not older than the server.",
        )


def _check_direct(location: Location, password: str | None) -> None:
    """Raises StoreError: the URL leads to a pooler. A server that cannot be reached is left to pg_dump.

    pg_dump empties the search_path of its session. If it ends before its transaction, PgBouncer in transaction mode
    gives that session to other clients, which then find no tables.
    """
    # Imported here, since the import takes time that commands on SQLite need not spend.
    import psycopg

    timeout = int(str(location.url.query.get("connect_timeout", _CONNECT_SECONDS)))
    try:
        with psycopg.connect(
            location.for_programs, password=password, connect_timeout=timeout, autocommit=True, prepare_threshold=None
        ) as connection:
            line = connection.execute("SELECT pg_backend_pid()").fetchone()
            # A pooler gives its clients ids of its own.
            pooled = line is not None and line[0] != connection.info.backend_pid
    except psycopg.Error:
        return
    if pooled:
        raise StoreError(
            f"{location.shown} leads to a pooler such as PgBouncer, and pg_dump would leave its settings in a session "
            "that others use",
            remedy="Give PostgreSQL's own address with --storage, or write an SQLite file: doteval db copy URL FILE.db "
            "--running",
        )

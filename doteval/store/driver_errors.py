"""Turns errors of database drivers into errors with a remedy. Their messages never hold values."""

from __future__ import annotations

import re
import sqlite3
from typing import Any

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from doteval.core.file_descriptors import are_spent, how_to_raise, is_lack_of_descriptors
from doteval.errors import StoreError, StoreReadOnlyError, StoreTimeoutError
from doteval.store.connection_errors import role_of, said_and_remedy
from doteval.store.url import Location


class RefusedError(StoreError):
    """The database refused a value, so that trying again cannot help."""


_FULL = "its disk is full"
_LOCKED = "it stayed locked by another process"
_UNREACHABLE = "troubleshooting#store-unreachable"
# The sections of the documentation about some meanings.
_PAGES = {
    _FULL: "troubleshooting#disk-full",
    _LOCKED: "troubleshooting#store-locked",
    "the connection was lost or refused": _UNREACHABLE,
    "the login was refused": _UNREACHABLE,
    "there is no database of that name": _UNREACHABLE,
}

# The meaning and the remedy of SQLite's errors, by the beginning of their name.
_SQLITE = {
    "SQLITE_FULL": (_FULL, "Free some space; nothing that was stored is lost."),
    "SQLITE_BUSY": (_LOCKED, "Look for a process that keeps a transaction open."),
    "SQLITE_LOCKED": (_LOCKED, "Look for a process that keeps a transaction open."),
    "SQLITE_CANTOPEN": ("its file cannot be opened", "Check the path and the permissions."),
    "SQLITE_PERM": ("its file may not be accessed", "Check the permissions."),
    "SQLITE_NOTADB": ("its file is not an SQLite database", "Give another file with --storage."),
    "SQLITE_CORRUPT": ("its file is damaged", "Restore a backup, or try `sqlite3 FILE .recover`."),
    "SQLITE_IOERR": ("its file cannot be read or written", "Check the disk and its free space."),
    "SQLITE_PROTOCOL": ("its locks do not work", "Keep the file on a local disk, or use PostgreSQL."),
    "SQLITE_NOMEM": ("there is not enough memory", "Free some memory."),
}

# The meaning and the remedy of PostgreSQL's errors, by the class, which is the beginning of the code.
_POSTGRES = {
    "08": ("the connection was lost or refused", "Check that PostgreSQL runs and can be reached from here."),
    "25": ("the connection's transaction is in a wrong state", "Try again."),
    "28": ("the login was refused", "Check the user and the password in the URL."),
    "3D": ("there is no database of that name", "Create it first: createdb NAME"),
    "40": ("it gave up one of two transactions that waited for each other", "Try again."),
    "53": ("it is out of disk, memory or connections", "See the server's log; nothing that was stored is lost."),
    "55": ("something that it needs is in use", "Try again."),
    "57": ("the server shut down or ended the statement", "Try again when it is up."),
    "58": ("the server has trouble with its files", "See the server's log."),
}

_READ_ONLY = "25006"
# A statement that ran into its limit of time, or that an administrator has ended.
_ENDED = ("SQLITE_INTERRUPT", "57014")
# The role lacks a right; or it may use none of the schemas, so that there is none to create a table in.
_NO_RIGHT, _NO_SCHEMA = "42501", "3F000"
# A query that locks lines needs the right to change them.
_LOCKING = re.compile(r"\bFOR (?:NO KEY )?(?:UPDATE|SHARE)\b")
_MAY_READ = "GRANT USAGE ON SCHEMA public TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
_MAY_WRITE = (
    "GRANT USAGE ON SCHEMA public TO {role}; "
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}; "
    "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}"
)
_MAY_CREATE = "GRANT USAGE, CREATE ON SCHEMA public TO {role}"

# What is about a value, and not about the connection, the server or its schema: PostgreSQL's classes of data errors,
# of violated constraints and of values that are too large, and the same of SQLite.
_VALUE_CLASSES = ("22", "23", "54")
_VALUE_NAMES = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
_VALUE_TYPES = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError)


def store_error(error: Exception, location: Location) -> StoreError:
    """The `StoreError` for an error of SQLAlchemy or of a driver.

    It is a `StoreReadOnlyError` if only writing is impossible, a `StoreTimeoutError` if a query was ended, and a
    `RefusedError` if a value was refused.
    """
    original: Any = getattr(error, "orig", None) or error
    where = f"the result store {location.shown}"
    if isinstance(error, PoolTimeoutError):
        return StoreError(
            f"{where} cannot be used: all connections of this process stayed busy", remedy="Use fewer threads."
        )
    name: str = getattr(original, "sqlite_errorname", None) or ""
    code: str = getattr(original, "sqlstate", None) or ""
    if code in (_NO_RIGHT, _NO_SCHEMA):
        return _no_right(str(getattr(error, "statement", None) or ""), code, location)
    if name.startswith("SQLITE_READONLY") or code == _READ_ONLY:
        return StoreReadOnlyError(
            f"{where} can be read but not written",
            remedy="Make it writable for this user, or choose another one with --storage.",
        )
    if (name.startswith(("SQLITE_CANTOPEN", "SQLITE_IOERR")) and are_spent()) or is_lack_of_descriptors(original):
        return no_descriptors(where)
    if name in _ENDED or code in _ENDED:
        return StoreTimeoutError(f"{where} took too long for an answer, and the query was ended")
    known = next((known for prefix, known in _SQLITE.items() if name.startswith(prefix)), None)
    known = known or _POSTGRES.get(code[:2])
    if known is not None:
        reason, remedy = known
        if name == "SQLITE_CANTOPEN" and location.path is not None and location.path.is_dir():
            reason, remedy = "it is a directory", "Give a file in it, as in --storage DIRECTORY/results.db."
        return StoreError(f"{where} cannot be used: {reason} ({name or code})", remedy=remedy, page=_PAGES.get(reason))
    if location.path is None and not code and _is_about_the_connection(original):
        # The client's message about the connection names hosts and ports, but nothing that was sent.
        said, remedy = said_and_remedy(str(original), location)
        return StoreError(f"{where} cannot be reached: {said}", remedy=remedy, page=_UNREACHABLE)
    said = f"{where} refused a statement: {type(original).__name__} ({name or code or 'no code'})"
    return RefusedError(said) if is_refusal(error) else StoreError(said, remedy="See the log of the database.")


def no_descriptors(where: str) -> StoreError:
    """The error for a store, described by `where`, that cannot be opened for want of file descriptors."""
    return StoreError(
        f"{where} cannot be used: this process has too many files open",
        remedy=how_to_raise(),
        page="troubleshooting#too-many-files-open",
    )


def is_refusal(error: BaseException) -> bool:
    """Whether an error of SQLAlchemy or of a driver is about a value, so that the database itself is well."""
    original: Any = getattr(error, "orig", None) or error
    name: str = getattr(original, "sqlite_errorname", None) or ""
    code: str = getattr(original, "sqlstate", None) or ""
    return code[:2] in _VALUE_CLASSES or name.startswith(_VALUE_NAMES) or isinstance(original, _VALUE_TYPES)


def _no_right(statement: str, code: str, location: Location) -> StoreError:
    """The error for a role of PostgreSQL that may not do something, with what to grant it."""
    role, where = role_of(location), f"the result store {location.shown}"
    verb = statement.lstrip().partition(" ")[0].upper()
    if code == _NO_SCHEMA or verb == "CREATE":
        lacking, grant = "create its tables", _MAY_CREATE
    elif verb in ("ALTER", "DROP"):
        return StoreError(
            f"{where} cannot be upgraded: the role {role} does not own its tables",
            remedy="Run doteval db upgrade as the role that created them.",
        )
    elif verb == "SELECT" and not _LOCKING.search(statement):
        lacking, grant = "read its tables", _MAY_READ
    else:
        return StoreReadOnlyError(
            f"{where} can be read but not written: the role {role} has no right to",
            remedy=f"As the owner of the tables, run: {_MAY_WRITE.format(role=role)}",
        )
    return StoreError(
        f"{where} cannot be used: the role {role} may not {lacking}",
        remedy=f"As the owner of the schema and its tables, run: {grant.format(role=role)}",
    )


def _is_about_the_connection(error: Any) -> bool:
    # Imported here, since the import takes time that commands on SQLite need not spend.
    import psycopg

    return isinstance(error, psycopg.OperationalError)

"""What a driver raises, made into an error that says what to do. Never with values in it."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from doteval.errors import StoreError, StoreReadOnlyError
from doteval.store.location import Location

_SQLITE = {
    "SQLITE_FULL": ("its disk is full", "Free some space; nothing that was stored is lost."),
    "SQLITE_BUSY": ("it stayed locked by another process", "Look for a process that keeps a transaction open."),
    "SQLITE_LOCKED": ("it stayed locked by another process", "Look for a process that keeps a transaction open."),
    "SQLITE_CANTOPEN": ("its file cannot be opened", "Check the path and the permissions."),
    "SQLITE_NOTADB": ("its file is not an SQLite database", "Give another file."),
    "SQLITE_CORRUPT": ("its file is damaged", "Restore a backup, or try `sqlite3 FILE .recover`."),
    "SQLITE_IOERR": ("its file cannot be read or written (I/O error)", "Check the disk and its free space."),
}

_POSTGRES = {
    "08": ("the connection was lost or refused", "Check that PostgreSQL runs and can be reached from here."),
    "28": ("the login was refused", "Check the user and the password in the URL."),
    "3D": ("there is no database of that name", "Create it first: createdb NAME."),
    "40": ("it gave up one of two transactions that waited for each other", "Try again."),
    "53": ("it is out of disk, memory or connections", "See the server's log; nothing that was stored is lost."),
    "57": ("the server is shutting down or cancelled the query", "Try again when it is up."),
}


def store_error(error: SQLAlchemyError, location: Location) -> StoreError:
    """The `StoreError` for a driver's error at that location."""
    original: Any = getattr(error, "orig", None)
    name = getattr(original, "sqlite_errorname", None)
    code = getattr(original, "sqlstate", None)
    where = f"the result store {location.shown}"
    if (name or "").startswith("SQLITE_READONLY") or code in ("25006", "42501"):
        return StoreReadOnlyError(
            f"{where} can be read but not written",
            remedy="Make it writable for this user, or choose another one with --storage.",
        )
    if name:
        for prefix, (reason, remedy) in _SQLITE.items():
            if name.startswith(prefix):
                return StoreError(f"{where} cannot be used: {reason}", remedy=remedy)
    if code:
        known = _POSTGRES.get(code[:2])
        if known:
            return StoreError(f"{where} cannot be used: {known[0]} ({code})", remedy=known[1])
        return StoreError(f"{where} refused a statement: {type(original).__name__} ({code})")
    if isinstance(error, DBAPIError) and location.path is None and name is None:
        return StoreError(
            f"{where} cannot be reached: {type(original).__name__}",
            remedy="Check that PostgreSQL runs and can be reached from here, and the URL.",
        )
    return StoreError(f"{where} failed: {type(original or error).__name__}{f' ({name})' if name else ''}")

"""Temporary directories of one process: of mode 0700, and removed however the process ends.

The kernel holds a lock on each for as long as a process that uses it lives, in whatever container that is. So the next
process that makes a directory can remove those whose processes were killed: nobody holds their locks any more.

Directories with journals are an exception. What a killed process has spent is in them, so they stay until it is in the
result store: `left_directories` finds them.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from doteval.core import clocks

# Earlier versions made names with a dash in place of the dot, and held no locks.
_NAME = re.compile(r"doteval-[a-z]+\.[0-9a-f]{12}")

# The kind of directories with journals.
JOURNALS = "journals"
# Journals that are older belong to a store that is not used any more.
_JOURNALS_KEPT_SECONDS = 30 * 24 * 3600.0

# The parents in which this process has looked for remains.
_swept: set[Path] = set()


class PrivateDirectory:
    """A temporary directory that belongs to this process, as a context manager or until `remove`.

    It is also removed when this process ends, except for one with journals.

    path: the directory
    lock: the descriptor that holds the lock. A child process that inherits it uses the directory too.

    kind: a part of its name
    parent: where it is made; None is the directory for temporary files

    Raises OSError: if it cannot be made.
    """

    def __init__(self, kind: str, parent: str | None = None) -> None:
        base = Path(parent or tempfile.gettempdir())
        _sweep(base)
        self._owner = os.getpid()
        self.lock: int | None = None
        if kind != JOURNALS:
            # Before it is made, so that no signal comes between. In a forked child this does nothing.
            atexit.register(self.remove)
        self.path = base / private_name(kind)
        while not self._make():
            self.path = base / private_name(kind)

    def _make(self) -> bool:
        """Make the directory, and lock it. Returns False if another process took it for remains in between."""
        self.path.mkdir(mode=0o700)
        try:
            self.lock = use_private_directory(self.path)
        except (FileNotFoundError, BlockingIOError):
            return False
        if self.path.exists():
            return True
        self._unlock()
        return False

    def leave(self) -> None:
        """Use a directory with journals no longer, and keep it for `left_directories`."""
        self._unlock()

    def _unlock(self) -> None:
        lock, self.lock = self.lock, None
        if lock is not None:
            os.close(lock)

    def remove(self) -> None:
        """Remove the directory and what is in it. Safe to call twice; does nothing in a forked child."""
        if self._owner != os.getpid():
            return
        shutil.rmtree(self.path, ignore_errors=True)
        self._unlock()
        atexit.unregister(self.remove)

    def __enter__(self) -> PrivateDirectory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()


def private_name(kind: str) -> str:
    """A new name for a private directory. All of a kind are equally long.

    >>> len(private_name("redis"))
    26
    """
    return f"doteval-{kind}.{secrets.token_hex(6)}"


def use_private_directory(path: Path) -> int | None:
    """Keep a private directory from being removed while this process lives, also if its owner is killed.

    Returns the descriptor that holds the lock, None if the file system has no locks: nobody removes remains there.

    Raises FileNotFoundError: if it is gone.
    Raises BlockingIOError: if another process is removing it.
    """
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise
    except OSError:
        os.close(opened)
        return None
    return opened


def left_directories(kind: str) -> Iterator[Path]:
    """The directories of a kind below the directory for temporary files that no process uses any more.

    While the caller has one, no other process finds it.
    """
    for path in _remains(Path(tempfile.gettempdir())):
        if _kind_of(path) == kind:
            with contextlib.suppress(OSError), _unused(path):
                # Another process may have removed it just now.
                if path.exists():
                    yield path


def _sweep(parent: Path) -> None:
    """Remove the directories of this user whose processes are gone, once for each `parent`."""
    if parent in _swept:
        return
    _swept.add(parent)
    for path in _remains(parent):
        with contextlib.suppress(OSError):
            if _kind_of(path) != JOURNALS or clocks.now() - _changed_at(path) > _JOURNALS_KEPT_SECONDS:
                with _unused(path):
                    shutil.rmtree(path, ignore_errors=True)


def _remains(parent: Path) -> list[Path]:
    """The private directories of this user, used or not."""
    found: list[Path] = []
    # Without the rights to look, there is nothing to find.
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                        found.append(Path(entry.path))
    return found


def _kind_of(path: Path) -> str:
    return path.name.removeprefix("doteval-").partition(".")[0]


def _changed_at(path: Path) -> float:
    """When files came to a directory, or to one in it."""
    return max(each.stat().st_mtime for each in (path, *path.iterdir()))


@contextlib.contextmanager
def _unused(path: Path) -> Iterator[None]:
    """Hold a directory that no process uses, against all others. Raises OSError if one does, or if nobody can tell."""
    opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)

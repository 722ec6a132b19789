"""Makes files that may hold what is confidential: prompts, replies, rows, errors. Only their owner may read them."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

# doteval's own directory in a project. Others belong to the user.
_OWN_DIRECTORY = ".doteval"


def make_private_file(path: Path) -> None:
    """Make a file of mode 0600, and its directory of mode 0700, whatever the umask. What exists stays as it is.

    A directory named ``.doteval`` gets that mode also if it exists, as long as it belongs to this user.

    Raises OSError: if they cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        if path.parent.name == _OWN_DIRECTORY:
            _make_private(path.parent)
    # Its owner may have given others access to a file that exists.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _make_private(directory: Path) -> None:
    found = directory.stat()
    if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & 0o077:
        # A file system without modes, or one that is read-only, keeps what it has.
        with contextlib.suppress(OSError):
            directory.chmod(0o700)

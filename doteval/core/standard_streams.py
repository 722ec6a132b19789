"""The standard streams of this process, which daemons and `cron` may have closed."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def open_closed_streams() -> None:
    """Connect standard input, output and error to /dev/null where they are closed, as with ``>&-``.

    Python has None in their place then, and the next file that is opened, perhaps a database, would take the number of
    a stream that child processes print to.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # Lower numbers are open, so this is the lowest free one, which is what `open` returns.
            opened = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(opened, True)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1)


def silence(stream: TextIO) -> None:
    """Connect a standard stream that can no longer be written to /dev/null, so that Python can flush it at its end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)

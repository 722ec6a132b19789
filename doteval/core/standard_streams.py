"""The standard streams of this process, which daemons and `cron` may have closed."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


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


def outlive_terminals() -> None:
    """Have this process go on when the terminal of its standard output or error is closed: the rest is not shown."""
    if sys.stdout.isatty():
        sys.stdout = terminal_writer(sys.stdout.fileno(), sys.stdout.encoding)
    if sys.stderr.isatty():
        sys.stderr = terminal_writer(sys.stderr.fileno(), sys.stderr.encoding)


def terminal_writer(descriptor: int, encoding: str = "utf-8") -> TextIO:
    """A stream that writes to a terminal, and to nowhere once the terminal has been closed. It leaves it open."""
    raw = io.BufferedWriter(_Terminal(descriptor, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True)


class _Terminal(io.FileIO):
    def write(self, data: ReadableBuffer) -> int:
        try:
            return super().write(data)
        except OSError as error:
            # What the kernel answers when the other end is closed.
            if error.errno != errno.EIO:
                raise
            return memoryview(data).nbytes

"""Passes on what child processes print, line by line.

It uses a file and not a pipe: a print into a pipe whose reader was killed would raise in the middle of a row.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path

# Celery prints this at every warm shutdown, and it tells the user nothing.
_DROPPED = ("worker: Warm shutdown",)
# Bytes of a line that are passed on. Of a longer one, such as a progress bar that never ends its line, only the number
# of its bytes is kept.
_MOST_BYTES = 100_000
# Bytes that are read at once, and how often `pass_on` does so at most: a process that prints without end must not keep
# the supervisor from its other work.
_READ_BYTES, _MOST_READS = 1 << 20, 16
# Once so many bytes were passed on, their space on the disk is given back.
_FREED_BYTES = 16 << 20
# FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE of Linux.
_PUNCH_HOLE = 3
# Lines that are kept to show why a process ended: enough for the end of a traceback.
_KEPT_LINES = 10


class OutputFile:
    """A file that any number of processes append to, and that is read as it grows.

    directory: where it is made.
    file: the standard output for the child processes.
    output: called by `pass_on` with every new line.
    last_lines: the last lines that were passed on.

    The file has no name, so it disappears with the last process that has it open. On Linux it takes a bounded place on
    the disk, however long the processes print.
    """

    def __init__(self, output: Callable[[str], None], directory: Path) -> None:
        self._output = output
        path = directory / "output"
        self.file = path.open("ab", buffering=0)
        self._reader = path.open("rb")
        path.unlink()
        self._freed = 0
        self._line = _Line()
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def pass_on(self) -> None:
        """Pass on the complete lines that were printed since the last call, of very many only the first ones."""
        for _ in range(_MOST_READS):
            if not self._pass_on_piece():
                break
        if self._reader.tell() - self._freed >= _FREED_BYTES:
            self._free()

    def close(self) -> None:
        """Pass on what is left."""
        # A process that is left behind may print on for ever.
        size = os.fstat(self._reader.fileno()).st_size
        while self._reader.tell() < size:
            self._pass_on_piece()
        self._end_line()
        self._reader.close()
        self.file.close()

    def _pass_on_piece(self) -> bool:
        """Read some bytes and pass on the lines that end in them. Returns whether there were any bytes."""
        content = self._reader.read(_READ_BYTES)
        begun, *others = content.split(b"\n")
        self._line.add(begun)
        for each in others:
            self._end_line()
            self._line.add(each)
        return bool(content)

    def _free(self) -> None:
        """Give back the space of what was passed on. To cut the file could lose what is being printed."""
        if sys.platform == "linux":
            read = self._reader.tell()
            libc = ctypes.CDLL(None)
            start, length = ctypes.c_int64(self._freed), ctypes.c_int64(read - self._freed)
            # A file system that cannot do it refuses; then the file keeps its size, as elsewhere.
            libc.fallocate(self.file.fileno(), _PUNCH_HOLE, start, length)
            self._freed = read

    def _end_line(self) -> None:
        text, self._line = self._line.text(), _Line()
        if text and not text.startswith(_DROPPED):
            self.last_lines.append(text)
            self._output(text)


class _Line:
    """A line that comes in pieces. It keeps the first bytes and counts the others."""

    def __init__(self) -> None:
        # Adding each piece to a text would take quadratic time.
        self._kept: list[bytes] = []
        self._room = _MOST_BYTES
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        if kept := piece[: self._room]:
            self._kept.append(kept)
            self._room -= len(kept)

    def text(self) -> str:
        text = b"".join(self._kept).decode(errors="replace").rstrip()
        return text if self._bytes <= _MOST_BYTES else f"{text}... ({self._bytes:,} bytes in this line)"

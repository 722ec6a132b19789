"""Writes what the server prints to a file of bounded size, and keeps its end for messages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from .files import OUTPUT

_ROTATED = f"{OUTPUT}.old"
_MAX_FILE_BYTES = 8 * 1024 * 1024
_TAIL_LINES, _TAIL_LINE_CHARACTERS, _TAIL_BYTES = 15, 160, 16_384
_CONTROL_SEQUENCES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class OutputLog:
    """The output of all servers that one keeper starts. Two files of at most 8 MiB are kept."""

    def __init__(self) -> None:
        self._file = _open()
        self._tail = b""

    def write(self, content: bytes) -> None:
        self._tail = (self._tail + content)[-_TAIL_BYTES:]
        self._file.write(content)
        self._file.flush()
        if self._file.tell() > _MAX_FILE_BYTES:
            self._file.close()
            Path(OUTPUT).replace(_ROTATED)
            self._file = _open()

    def last_lines(self) -> str:
        """The end of the output, to append to a message: at most 15 lines of at most 160 characters."""
        text = _CONTROL_SEQUENCES.sub(b"", self._tail.replace(b"\r", b"\n")).decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if not lines:
            return "; it printed nothing"
        return "; its last output:\n" + "\n".join(f"  {_shortened(line)}" for line in lines[-_TAIL_LINES:])

    def close(self) -> None:
        self._file.close()

    def delete(self) -> None:
        for name in (OUTPUT, _ROTATED):
            Path(name).unlink(missing_ok=True)


def _open() -> BinaryIO:
    return Path(OUTPUT).open("wb")


def _shortened(line: str) -> str:
    return line if len(line) <= _TAIL_LINE_CHARACTERS else f"{line[: _TAIL_LINE_CHARACTERS - 1]}…"

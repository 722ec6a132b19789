"""Passes on what child processes print, line by line.

It uses a file and not a pipe: a print into a pipe whose reader was killed would raise in the middle of a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path

# Celery prints this at every warm shutdown, and it tells the user nothing.
_DROPPED = ("worker: Warm shutdown",)
# Lines that are kept to show why a process ended: enough for the end of a traceback.
_KEPT_LINES = 10


class OutputFile:
    """A file that any number of processes append to, and that is read as it grows.

    directory: where it is made.
    file: the standard output for the child processes.
    output: called by `pass_on` with every new line.
    last_lines: the last lines that were passed on.

    The file has no name, so it disappears with the last process that has it open.
    """

    def __init__(self, output: Callable[[str], None], directory: Path) -> None:
        self._output = output
        path = directory / "output"
        self.file = path.open("ab", buffering=0)
        self._reader = path.open("rb")
        path.unlink()
        # The pieces of a line that is not complete: adding each to a text would take quadratic time.
        self._begun: list[bytes] = []
        self.last_lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def pass_on(self) -> None:
        """Pass on the complete lines that were printed since the last call."""
        begun, *others = self._reader.read().split(b"\n")
        if begun:
            self._begun.append(begun)
        if not others:
            return
        lines = [b"".join(self._begun), *others[:-1]]
        self._begun = [others[-1]]
        for line in lines:
            self._pass_on_line(line)

    def close(self) -> None:
        """Pass on what is left."""
        self.pass_on()
        if rest := b"".join(self._begun):
            self._pass_on_line(rest)
        self._reader.close()
        self.file.close()

    def _pass_on_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()
        if text and not text.startswith(_DROPPED):
            self.last_lines.append(text)
            self._output(text)

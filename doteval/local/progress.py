"""The progress line of an evaluation in this process: rows, rows a second, errors, the running score, time left.

It is drawn below the cursor, which stays where it is, so that it does not disturb pytest's own output.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sys
import threading
import warnings
from collections.abc import Callable
from typing import TextIO

import pytest

from doteval.core import clocks
from doteval.core.results import Outcome, RowStatus
from doteval.core.standard_streams import terminal_writer
from doteval.core.tables import columns_of
from doteval.core.wording import counted, plain

# Seconds between two drawings. One takes about 20 µs.
_DRAW_SECONDS = 0.2

# Characters of a name that are shown, however wide the terminal is.
_MOST_NAME = 1000

# Index (one line down, scrolling at the bottom) and up again: there is a line below now.
_MAKE_ROOM = "\x1bD\x1b[A"
# Save the cursor, first column of the next line; clear to its end, restore the cursor.
_BELOW, _BACK = "\x1b7\x1bE", "\x1b[K\x1b8"


class Screen:
    """A terminal that the progress line can be drawn on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def width(self) -> int:
        return shutil.get_terminal_size().columns

    def write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()


def terminal_screen(config: pytest.Config) -> Screen | None:
    """The terminal of a pytest run; None if there is none, with -q, or with -s, where rows print on it.

    To be called while pytest is being configured, before its capturing replaces standard output.
    """
    if (
        config.get_verbosity() < 0
        or config.getoption("capture") == "no"
        or hasattr(config, "workerinput")
        or not config.pluginmanager.hasplugin("terminalreporter")
        or not is_terminal(sys.stdout)
    ):
        return None
    return Screen(terminal_writer(os.dup(sys.stdout.fileno())))


def write_line(terminal: pytest.TerminalReporter, line: str, **markup: bool) -> None:
    """Write a line to pytest's terminal, without the control characters it may hold."""
    terminal.write_line(plain(line), **markup)


def tell(config: pytest.Config, line: str) -> None:
    """Show a line at once, or among the warnings where pytest has no terminal, as in workers of pytest-xdist."""
    reporter = config.pluginmanager.getplugin("terminalreporter")
    if reporter is None:
        warnings.warn(plain(line), pytest.PytestWarning, stacklevel=2)
        return
    capturing = config.pluginmanager.getplugin("capturemanager")
    with contextlib.nullcontext() if capturing is None else capturing.global_and_fixture_disabled():
        reporter.ensure_newline()
        write_line(reporter, line, yellow=True)
        # Who reads it from a file or a pipe sees it at once, too.
        reporter.flush()


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream is a terminal that understands escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class ProgressLine:
    """The progress line of one evaluation. `total` is how many rows it will run, None if that is not known.

    `row` may be called from any thread.
    """

    def __init__(
        self, screen: Screen, name: str, total: int | None, *, clock: Callable[[], float] = clocks.monotonic
    ) -> None:
        self._screen = screen
        self._name = plain(name[:_MOST_NAME])
        self._total = total
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._next = self._began + _DRAW_SECONDS
        self._rows = 0
        self._failed = 0
        self._score: str | None = None
        self._sum = 0.0
        self._scored = 0
        self._drawn = False

    def row(self, outcome: Outcome) -> None:
        """Count a row that has completed, and draw the line if it is time."""
        with self._lock:
            self._count(outcome)
            now = self._clock()
            if now >= self._next:
                self._next = now + _DRAW_SECONDS
                self._draw(now)

    def close(self) -> None:
        """Remove the line."""
        with self._lock:
            if self._drawn:
                self._screen.write(f"{_BELOW}{_BACK}")
            self._drawn = False
            self._next = float("inf")

    def text(self, now: float, width: int = 1000) -> str:
        """The text of the line, in at most `width` columns: where it is longer, the last figures are left out, and then
        the end of the name. No figure is cut.
        """
        rows, *figures = self._figures(now)
        while figures and columns_of("  ".join([f"{self._name}: {rows}", *figures])) > width:
            figures.pop()
        name = self._name
        room = max(width - len(f": {rows}"), 1)
        if columns_of(name) > room:
            # Each character is looked at once.
            ends = itertools.accumulate(columns_of(character) for character in name)
            name = f"{name[: sum(1 for _ in itertools.takewhile(lambda end: end < room, ends))]}…"
        return "  ".join([f"{name}: {rows}", *figures])

    def _figures(self, now: float) -> list[str]:
        seconds = max(now - self._began, 1e-9)
        rate = self._rows / seconds
        rows = (
            f"{self._rows:,}/{counted(self._total, 'row')}" if self._total is not None else counted(self._rows, "row")
        )
        parts = [rows, f"{rate:,.0f} rows/s" if rate >= 10 else f"{rate:.1f} rows/s"]
        if self._failed:
            parts.append(counted(self._failed, "error"))
        if self._score is not None and self._scored + self._failed:
            # Failed rows count as False, as they do in the summary.
            parts.append(f"{self._score} {self._sum / (self._scored + self._failed):.3f}")
        if self._total is not None and self._rows:
            parts.append(f"{_duration((self._total - self._rows) / rate)} left")
        return parts

    def _count(self, outcome: Outcome) -> None:
        self._rows += 1
        if outcome.status is RowStatus.FAILED:
            self._failed += 1
        for score in outcome.scores:
            if self._score is None and isinstance(score.value, bool | int | float):
                self._score = score.name
            if score.name == self._score and isinstance(score.value, bool | int | float):
                self._sum += float(score.value)
                self._scored += 1

    def _draw(self, now: float) -> None:
        room = "" if self._drawn else _MAKE_ROOM
        self._drawn = True
        self._screen.write(f"{room}{_BELOW}{self.text(now, self._screen.width - 1)}{_BACK}")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

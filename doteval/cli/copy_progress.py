"""The progress of `doteval db copy`: a bar on a terminal, a line every ten seconds elsewhere, on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from doteval.cli import terminal
from doteval.cli.streams import say_aside
from doteval.core import clocks
from doteval.store import CopyProgress

# Seconds between two lines when there is no terminal.
_QUIET_SECONDS = 10.0


class CopyProgressDisplay:
    """Shows how far a copy is. Use it as a context manager."""

    def __init__(self) -> None:
        console = terminal.console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        self._task: TaskID | None = None
        self._shown: tuple[str, bool] | None = None
        self._said_at = clocks.monotonic()

    def __enter__(self) -> CopyProgressDisplay:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def moved(self, progress: CopyProgress) -> None:
        """Show the progress of the table that is being copied, or read back."""
        doing = "checking" if progress.checking else "copying"
        if self._bar is None:
            if clocks.monotonic() - self._said_at >= _QUIET_SECONDS:
                self._said_at = clocks.monotonic()
                say_aside(f"{doing} {progress.table}: {progress.done:,} of {progress.total:,} lines")
            return
        if self._shown != (progress.table, progress.checking):
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._shown = (progress.table, progress.checking)
            self._task = self._bar.add_task(f"{doing} {progress.table}", total=progress.total)
        if self._task is not None:
            self._bar.update(self._task, completed=progress.done)

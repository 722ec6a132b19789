"""Says what worker processes still do that were asked to leave, while a command waits for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from doteval.core.wording import counted
from doteval.supervision.inflight_journal import inflight_journal_path, read_inflight_journal

# Seconds between two lines, and rows that a line names at most.
_SAY_SECONDS = 10.0
_NAMED_ROWS = 5


class WaitReport:
    """A line every ten seconds about processes that have not left.

    on_message: called with each line for the user.
    clock: returns seconds that never decrease.
    """

    def __init__(self, on_message: Callable[[str], None], clock: Callable[[], float]) -> None:
        self._on_message = on_message
        self._clock = clock
        self._next_line = 0.0

    def begin(self) -> None:
        """The wait begins, of which the user knows."""
        self._next_line = self._clock() + _SAY_SECONDS

    def look(self, directories: Sequence[Path], left: float) -> None:
        """Say what is waited for, if it is time for a line.

        directories: those of the processes that have not left, with their in-flight journals.
        left: seconds until they are killed.
        """
        if self._clock() < self._next_line:
            return
        self.begin()
        rows = [row.row_index for each in directories for row in read_inflight_journal(inflight_journal_path(each))]
        named = ", ".join(map(str, rows[:_NAMED_ROWS]))
        more = f" and {len(rows) - _NAMED_ROWS} more" if len(rows) > _NAMED_ROWS else ""
        what = (
            f"{'row' if len(rows) == 1 else 'rows'} {named}{more} to end" if rows else "fixtures: no row is in flight"
        )
        processes = counted(len(directories), "worker process")
        self._on_message(f"{processes} still to leave, waiting for {what}; killed in {left:.0f} s at the latest")

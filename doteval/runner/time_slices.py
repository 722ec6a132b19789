"""Shares a process's time between evaluations whose rows wait at the same time."""

from __future__ import annotations

from collections.abc import Iterable

from doteval.core import clocks
from doteval.runner.assignments import Assignment, Runnable

# Seconds for which an evaluation runs while another one waits: long against most rows, and short enough that
# nobody takes the other evaluation for stuck. A slice also lasts at least ten times as long as the set-up took,
# so that set-ups take at most a tenth of the time.
_SLICE_SECONDS = 2.0
_SLICE_PER_SETUP = 10.0


class TimeSlice:
    """The time slice of the evaluation that is set up.

    The next evaluation begins when the rows in flight have ended, so a change costs the time of a row.
    """

    def __init__(self) -> None:
        self._ends = 0.0
        self._used = False

    def begin(self, setup_seconds: float) -> None:
        """Start the slice of an evaluation whose set-up took `setup_seconds`."""
        self._used = False
        self._ends = clocks.monotonic() + max(_SLICE_SECONDS, _SLICE_PER_SETUP * setup_seconds)

    def use(self) -> None:
        """Note that a row has begun. A slice in which none has begun does not end."""
        self._used = True

    def next_assignment(self, assignments: Iterable[Assignment], current: Runnable | None) -> Assignment | None:
        """The assignment that the next row comes from.

        It is the first one of `current`, or of another evaluation once the slice is over. None if no rows are left.
        """
        is_over = self._used and clocks.monotonic() >= self._ends
        otherwise = None
        for each in assignments:
            if each.exhausted:
                continue
            if (each.item is current) is not is_over:
                return each
            otherwise = otherwise or each
        return otherwise

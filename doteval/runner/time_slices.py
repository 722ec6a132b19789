"""Turns: which evaluation has the stage while several have rows to run."""

from __future__ import annotations

import time
from collections.abc import Iterable

from doteval.runner.assignments import Assignment, Runnable

# Seconds for which an evaluation has the stage while another one waits: long against the time of most
# rows, short against the patience of people. Set-up must not take more than one part in so many of it.
_TURN_SECONDS = 2.0
_TURN_LOADS = 10.0


class Turn:
    """The time of the evaluation that is on the stage.

    Another takes its turn when the rows in flight have ended, so changing costs the time of a row.
    """

    def __init__(self) -> None:
        self._ends = 0.0
        self._used = False

    def begin(self, set_up_seconds: float) -> None:
        """An evaluation has come on the stage, and its set-up took so long."""
        self._used = False
        self._ends = time.monotonic() + max(_TURN_SECONDS, _TURN_LOADS * set_up_seconds)

    def use(self) -> None:
        """It has begun a row."""
        self._used = True

    def following(self, assignments: Iterable[Assignment], on_stage: Runnable | None) -> Assignment | None:
        """Where the next row comes from: the evaluation on the stage, until its turn is over and another waits."""
        is_over = self._used and time.monotonic() >= self._ends
        otherwise = None
        for each in assignments:
            if each.drawn:
                continue
            if (each.item is on_stage) is not is_over:
                return each
            otherwise = otherwise or each
        return otherwise

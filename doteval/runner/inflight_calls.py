"""Flights: one call each, from before the set-up of its rows' fixtures until they are recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doteval.core.metering import Meter, metering
from doteval.core.results import Outcome, Row
from doteval.pytest_runtime.row_context import Lane
from doteval.runner.assignments import Assignment, Noted
from doteval.runner.calls import with_usage


@dataclass(eq=False, slots=True)
class Flight:
    """One call: the rows that it is for (more than one in a batch), the lane with their fixtures, where they are
    noted, and the meter of what their fixtures use."""

    assignment: Assignment
    rows: Sequence[Row]
    lane: Lane | None
    noted: Noted
    meter: Meter | None = None

    def tear_down(self, timeout: float | None = None) -> list[BaseException]:
        """Tear down what the rows have of their own. Returns what that raised."""
        if self.lane is None:
            return []
        with metering(self.meter):
            return self.lane.tear_down(timeout)

    def give_up(self) -> None:
        """The rows are not begun after all."""
        self.tear_down()
        self.noted.landed()
        if self.meter is not None:
            self.assignment.pay(self.meter)

    def record(self, outcomes: list[Outcome]) -> BaseException | None:
        """Record the rows. Returns what that raised."""
        raised = None
        if self.meter is not None:
            outcomes = [with_usage(outcomes[0], self.meter.reading()), *outcomes[1:]]
        for row, outcome in zip(self.rows, outcomes, strict=True):
            try:
                self.assignment.record(row, outcome)
            except Exception as error:  # noqa: BLE001 - handed to whoever assigned the rows
                raised = error
        return raised


class _Nowhere:
    """Where rows are noted of which nobody wants to know."""

    def called(self, limit: float) -> None:
        pass

    def returned(self) -> None:
        pass

    def landed(self) -> None:
        pass


NOWHERE = _Nowhere()

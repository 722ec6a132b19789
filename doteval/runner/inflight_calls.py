"""Calls in flight: each lasts from before the set-up of its rows' fixtures until the rows are recorded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from doteval.core.call_journal import RowCalls
from doteval.core.metering import Meter, metering
from doteval.core.results import Outcome, Row, RowStatus
from doteval.core.tracing import RowSpan
from doteval.runner.assignments import Assignment, JournalEntry, RowFixtures
from doteval.runner.calls import with_usage


@dataclass(eq=False, slots=True)
class InflightCall:
    """One call in flight.

    `rows`: the rows it serves, more than one in a batch. `context`: their own fixtures, None if they have none.
    `entry`: their entry in the in-flight journal. `meter`: counts what their fixtures use. `calls`: their part in the
    call journal. `span`: their span, None if they are not traced.
    """

    assignment: Assignment
    rows: Sequence[Row]
    context: RowFixtures | None
    entry: JournalEntry
    meter: Meter | None = None
    calls: RowCalls | None = None
    span: RowSpan | None = None

    def tear_down(self, timeout: float | None = None) -> list[BaseException]:
        """Tear down the rows' own fixtures, each within `timeout` seconds. Returns what that raised."""
        if self.context is None:
            return []
        with metering(self.meter), as_current(self.span):
            return self.context.tear_down(timeout)

    def abandon(self) -> None:
        """Tear the fixtures down without a call: the rows stay pending."""
        self.tear_down()
        self.entry.completed()
        if self.span is not None:
            self.span.end(())
        if self.meter is not None:
            self.assignment.report_lost_usage(self.meter)

    def record(self, outcomes: list[Outcome]) -> BaseException | None:
        """Record the rows. Returns what that raised."""
        raised = None
        if self.calls is not None and self.calls.parking is not None and self.calls.parking.parked:
            # Whatever the function has returned or raised; a row without a result is pending.
            outcomes = [
                Outcome(RowStatus.PENDING, each.started_at, each.seconds, usage=each.usage) for each in outcomes
            ]
        if self.meter is not None:
            outcomes = [with_usage(outcomes[0], self.meter.reading()), *outcomes[1:]]
        if self.span is not None:
            self.span.end(outcomes)
        for row, outcome in zip(self.rows, outcomes, strict=True):
            try:
                self.assignment.record(row, outcome)
            except Exception as error:  # noqa: BLE001 - it ends the assignment
                raised = error
        return raised


_NOTHING: AbstractContextManager[None] = nullcontext()


def as_current(span: RowSpan | None) -> AbstractContextManager[None]:
    """A block in which the span, if there is one, is the parent of spans that begin."""
    return _NOTHING if span is None else span.current()


class RowCounter:
    """Counts rows that have begun and are not stored. Safe to use from several threads.

    >>> counter = RowCounter()
    >>> entry = counter.note([Row(0, "a", {}), Row(1, "b", {})])
    >>> counter.rows
    2
    >>> entry.completed()
    >>> counter.rows
    0
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.rows = 0

    def note(self, rows: Sequence[Row], note: Callable[[Sequence[Row]], JournalEntry] | None = None) -> JournalEntry:
        """Count rows that begin, until their entry is completed. `note` makes one in the in-flight journal too."""
        self.add(len(rows))
        return _CountedRows(self, len(rows), NO_ENTRY if note is None else note(rows))

    def add(self, rows: int) -> None:
        """Count rows that are to be stored, or no longer count them."""
        with self._lock:
            self.rows += rows


class _NoEntry:
    """Stands in for a journal entry where no journal is kept."""

    def called(self, limit: float) -> None:
        pass

    def returned(self) -> None:
        pass

    def completed(self) -> None:
        pass


class _CountedRows:
    """The rows of one call that a counter counts, with their entry in the in-flight journal."""

    def __init__(self, counter: RowCounter, rows: int, entry: JournalEntry) -> None:
        self._counter = counter
        self._rows = rows
        self._entry = entry
        self.called = entry.called
        self.returned = entry.returned

    def completed(self) -> None:
        self._counter.add(-self._rows)
        self._entry.completed()


NO_ENTRY = _NoEntry()

"""Assignments of rows to a scheduler, and the protocols through which it reaches evaluations and fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from doteval.core.call_journal import RowCalls
from doteval.core.client_config import CacheChoice
from doteval.core.error_leaves import for_logs
from doteval.core.metering import Meter, UsageScope
from doteval.core.results import Outcome, Row, Usage
from doteval.core.tracing import RowTracer
from doteval.core.wording import counted
from doteval.foreach import ForEachSpec
from doteval.runner.admission import AdmissionCheck, Permits
from doteval.runner.calls import CallPolicy, failed_before_call
from doteval.runner.error_classes import ends_command


class WindingDownError(Exception):
    """The process is shutting down: rows that had not begun stay pending."""


class Runnable(Protocol):
    """What the scheduler needs to know of an evaluation. `EvaluationItem` implements it."""

    @property
    def spec(self) -> ForEachSpec: ...

    @property
    def is_async(self) -> bool: ...

    def exclusive_fixture_names(self) -> list[str]:
        """The fixtures that only one row at a time can use."""


class LoadFailedError(Exception):
    """The shared fixtures of the evaluation `item` could not be set up. `__cause__` says why.

    Its message is for logs. It names the fixture that raised, if that is known, and does not quote the cause.
    """

    def __init__(self, item: Any, cause: BaseException, fixture: str | None = None) -> None:
        where = "" if fixture is None else f"the fixture {fixture!r} raised "
        super().__init__(f"{item.evaluation_name}: {where}{for_logs(cause)}")
        self.item = item
        self.__cause__ = cause


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """An eval function and the fixture values to call it with; the row's values are still missing."""

    function: Callable[..., Any]
    fixtures: Mapping[str, Any]


class RowFixtures(Protocol):
    """Holds the function-scoped fixtures of one call. `RowContext` implements it."""

    def set_up(self) -> PreparedCall:
        """Load fresh fixtures. Raises what a fixture raises; `tear_down` must be called in any case."""

    def tear_down(self, timeout: float | None = None) -> list[BaseException]:
        """Tear the fixtures down, each within `timeout` seconds. Returns what that raised."""


class EvaluationFixtures(Protocol):
    """Holds the fixtures that the rows of one evaluation share. `EvaluationSetup` implements it."""

    @property
    def shared_call(self) -> PreparedCall | None:
        """What to call for every row, or None if each call needs fixtures of its own."""

    def enter(self, item: Any) -> None:
        """Set up the fixtures of an evaluation in place of the last one's. Raises LoadFailedError if one fails."""

    def take_context(self) -> RowFixtures:
        """Get fixtures for one call, not set up yet."""

    def release_context(self, context: Any) -> None:
        """Hand back fixtures that are torn down, for another call to use."""


class JournalEntry(Protocol):
    """The entry of one call's rows in the in-flight journal, which others read if this process dies or hangs."""

    def called(self, limit: float) -> None:
        """The call begins. If it takes longer than `limit` seconds, the process counts as hung."""

    def returned(self) -> None:
        """The call has ended, or can no longer hang the process."""

    def completed(self) -> None:
        """The rows are recorded, or were not begun after all."""


@dataclass(eq=False)
class Assignment:
    """Rows of one evaluation to be run.

    `record`: called for every row with its outcome, on the thread on which the row ended.
    `ended`: called once, after the last row, with None or with the error that ended the assignment early.
    `note`: called with the rows of each call before it begins; returns their entry in the in-flight journal.
    `alone`: whether no other row may run beside these in this process.
    `policy`: replaces the scheduler's policy.
    `name`: the name that all worker processes use for the evaluation.
    `check`: asked before each call. If it refuses, the assignment ends with the refusal.
    `permits`: taken for each row before it begins; None if any number may.
    `cache`: the submission's choice for the reply cache.
    `calls_of`: makes the part of a row in the call journal, where its calls are noted. Asked for a batch's first row.
    `tracer`: begins the spans of its rows; None if they are not traced.
    `record_lost_usage`: called with usage that belongs to no result: the set-up of shared fixtures, and rows
    that were set up and then not called.
    """

    item: Runnable
    rows: Iterator[Row]
    record: Callable[[Row, Outcome], None]
    ended: Callable[[BaseException | None], None]
    note: Callable[[Sequence[Row]], JournalEntry] | None = None
    alone: bool = False
    policy: CallPolicy | None = None
    name: str = ""
    check: AdmissionCheck | None = None
    permits: Permits | None = None
    cache: CacheChoice | None = None
    calls_of: Callable[[Row], RowCalls] | None = None
    tracer: RowTracer | None = None
    record_lost_usage: Callable[[UsageScope, tuple[Usage, ...]], None] | None = None
    in_flight: int = field(default=0, init=False)
    withdrawn: bool = field(default=False, init=False)
    # No further row is taken from `rows`.
    exhausted: bool = field(default=False, init=False)
    # The row that `is_over` has taken.
    _ahead: Row | None = field(default=None, init=False)
    # Why it ends early, None if it does not.
    error: BaseException | None = field(default=None, init=False)

    def stop(self, error: BaseException) -> None:
        """Begin no further row; the assignment ends with `error`."""
        self.exhausted, self.error = True, error

    def is_over(self) -> bool:
        """Whether no row is left. It looks one row ahead, which `draw` then begins with."""
        if self._ahead is None and not self.exhausted:
            self._ahead = self._next()
        return self.exhausted

    def may_begin(self, wake: Callable[[], None]) -> bool:
        """Whether the rows of the next call may begin now. If not, `wake` is called once they may."""
        return self.permits is None or self.permits.take(self.item.spec.batch_size or 1, wake)

    def draw(self, reject: Callable[[Assignment, Row, Outcome], None]) -> list[Row]:
        """Take the rows of the next call: one, or up to a batch. Empty if none is left or the next one is rejected.

        `reject`: called with each row that has too few values, and with its outcome.
        """
        rows: list[Row] = []
        spec = self.item.spec
        columns, most = len(spec.columns), spec.batch_size or 1
        while not self.exhausted and len(rows) < most:
            row, self._ahead = self._ahead or self._next(), None
            if row is None:
                break
            if len(row.values) == columns:
                rows.append(row)
                continue
            short = ValueError(f"the row has {counted(len(row.values), 'value')} for {counted(columns, 'column')}")
            reject(self, row, failed_before_call(short, "before the call"))
            if not rows:
                break
        return rows

    def _next(self) -> Row | None:
        """The next row, None if no further one is taken."""
        try:
            return next(self.rows)
        except StopIteration:
            self.exhausted = True
        except BaseException as error:
            # A dataset may raise anything, pytest.skip too. The error ends the assignment.
            if ends_command(error):
                raise
            self.stop(error)
        return None

    def usage_scope_of(self, rows: Sequence[Row]) -> UsageScope:
        """Where the usage of a call counts: at its first row."""
        return UsageScope(self.name, rows[0].index, rows[0].sample)

    def report_lost_usage(self, meter: Meter) -> None:
        """Report what the meter has counted as usage that belongs to no result."""
        used = meter.reading()
        if used and self.record_lost_usage is not None and meter.scope is not None:
            self.record_lost_usage(meter.scope, used)

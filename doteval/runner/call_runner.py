"""Takes calls from the set-up of their rows' own fixtures to the recorded results."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from doteval.clients.parking import ROWS_IN_BATCH_MODE
from doteval.core.metering import Meter, metering, with_usage_scope
from doteval.core.results import ErrorClass, Outcome, Row
from doteval.core.tracing import RowSpan
from doteval.runner.admission import Admission
from doteval.runner.assignments import Assignment, EvaluationFixtures, PreparedCall, Runnable
from doteval.runner.calls import CallPolicy, failed_before_call, with_teardown_errors
from doteval.runner.concurrency_windows import FixedWindow, Window
from doteval.runner.error_classes import ends_command
from doteval.runner.event_loop import LoopThread
from doteval.runner.executors import Ended, Executor, LoopExecutor, ThreadExecutor, run_inline
from doteval.runner.inflight_calls import NO_ENTRY, InflightCall, as_current


class CallRunner:
    """Runs the calls of one evaluation at a time.

    All methods belong to the scheduler's thread, except `give_up_teardowns`.

    `post`: has a function called on the scheduler's thread. `completed`: called there with the assignment of
    each call that has completed.
    """

    def __init__(
        self,
        setup: EvaluationFixtures,
        loop: LoopThread,
        admission: Admission,
        post: Callable[[Callable[[], None]], None],
        completed: Callable[[Assignment], None],
    ) -> None:
        self._setup = setup
        self._loop = loop
        self._admission = admission
        self._post = post
        self._completed = completed
        self.in_flight = 0
        self.window: Window = FixedWindow(1)
        self._policy = CallPolicy()
        # None: calls run inline.
        self._executor: Executor | None = None
        # Calls that have ended and whose fixtures are not torn down yet.
        self._awaiting_teardown: dict[InflightCall, list[Outcome]] = {}

    def open(self, item: Runnable, window: Window, policy: CallPolicy) -> None:
        """Prepare to run calls of an evaluation that is set up, as many at a time as its window says."""
        self.window = _without_overlap(item, window)
        self._policy = policy
        if item.is_async:
            self._executor = LoopExecutor(self._admission, self._loop, self._call_ended)
        elif self.window.most > 1:
            self._executor = ThreadExecutor(self._admission, self.window.most, self._call_ended)

    def close(self) -> None:
        """End the threads of the evaluation."""
        if self._executor is not None:
            self._executor.close()
        self._admission.close()
        self._executor = None

    def abandon(self) -> None:
        """Leave calls in flight behind, which do not end. The threads that they run in end with the process."""
        if self._executor is not None:
            self._executor.abandon()
        self._admission.close()
        self._executor = None

    def cancel(self) -> None:
        """Cancel async calls in flight: their rows stay pending."""
        if self._executor is not None:
            self._executor.cancel()

    def give_up_teardowns(self, why: BaseException) -> None:
        """Record the rows whose calls have ended without tearing their fixtures down. Called on any thread."""
        while self._awaiting_teardown:
            inflight, outcomes = self._awaiting_teardown.popitem()
            inflight.record([with_teardown_errors(outcome, [why]) for outcome in outcomes])

    def has_room(self) -> bool:
        """Whether the window admits one more call."""
        return self.window.admits(self.in_flight)

    def reject(self, assignment: Assignment, row: Row, outcome: Outcome) -> None:
        """Record a row that cannot be called."""
        self._finish(InflightCall(assignment, (row,), None, NO_ENTRY), [outcome])

    def begin(self, assignment: Assignment, rows: Sequence[Row]) -> None:
        """Begin one call with one row, or with the rows of a batch."""
        entry = assignment.note(rows) if assignment.note is not None else NO_ENTRY
        calls = None if assignment.calls_of is None else assignment.calls_of(rows[0])
        span = None if assignment.tracer is None else assignment.tracer.begin(rows)
        shared = self._setup.shared_call
        if shared is not None:
            self._call(InflightCall(assignment, rows, None, entry, calls=calls, span=span), shared)
            return
        context = self._setup.take_context()
        meter = Meter(assignment.usage_scope_of(rows), assignment.cache, calls)
        meter.span = span
        inflight = InflightCall(assignment, rows, context, entry, meter, calls, span)
        try:
            with metering(meter), as_current(span):
                prepared = context.set_up()
        except BaseException as error:
            if ends_command(error):
                inflight.tear_down()
                raise
            failed = failed_before_call(error, "at the set-up of a fixture")
            self._finish(inflight, [failed] * len(rows))
            return
        self._call(inflight, prepared)

    def _call(self, inflight: InflightCall, prepared: PreparedCall) -> None:
        assignment = inflight.assignment
        if assignment.policy is None:
            policy = self._policy
        else:
            policy = assignment.policy.with_retries(assignment.item.spec.retries)
        batch = assignment.item.spec.batch_size is not None
        arguments = {**prepared.fixtures, **_values(inflight.rows, batch=batch)}
        scope = assignment.usage_scope_of(inflight.rows)
        function = with_usage_scope(prepared.function, scope, assignment.cache, inflight.calls, inflight.span)
        if inflight.span is not None:
            function = _traced(function, inflight.span, is_async=assignment.item.is_async)
        if inflight.calls is not None and inflight.calls.parking is not None:
            function = _in_batch_mode(function, is_async=assignment.item.is_async)
        if self._executor is not None:
            assignment.in_flight += 1
            self.in_flight += 1
            self.window.begun()
            self._executor.submit(inflight, function, arguments, policy)
            return
        outcomes = run_inline(self._admission, inflight, function, arguments, policy)
        if outcomes is None:
            inflight.abandon()
        else:
            self._finish(inflight, outcomes)

    def _call_ended(self, inflight: InflightCall, ended: Ended) -> None:
        """Take the end of a call, on the thread on which it ended: the loop's or one of a pool."""
        if isinstance(ended, BaseException):
            ended = [failed_before_call(ended, "the row cancelled its own task")] * len(inflight.rows)
        outcomes = [ended] if isinstance(ended, Outcome) else ended
        if inflight.context is None and outcomes is not None:
            # Recorded here, so that the scheduler's thread has less to do.
            inflight.entry.completed()
            self._post(functools.partial(self._release, inflight, outcomes, inflight.record(outcomes)))
        else:
            if outcomes is not None:
                self._awaiting_teardown[inflight] = outcomes
            self._post(functools.partial(self._after_call, inflight, outcomes))

    def _after_call(self, inflight: InflightCall, outcomes: list[Outcome] | None) -> None:
        if outcomes is not None:
            self._finish(inflight, outcomes)
        else:
            inflight.abandon()
        self._release(inflight, outcomes, None)

    def _release(self, inflight: InflightCall, outcomes: list[Outcome] | None, error: BaseException | None) -> None:
        """Make room for another call after this one."""
        assignment = inflight.assignment
        assignment.in_flight -= 1
        self.in_flight -= 1
        self.window.ended(infrastructure_failed=outcomes is not None and any(map(_is_infrastructures, outcomes)))
        if error is not None:
            assignment.stop(error)
        self._completed(assignment)

    def _finish(self, inflight: InflightCall, outcomes: list[Outcome]) -> None:
        """Tear down the fixtures of a call that has ended, and record its rows."""
        if inflight.context is not None:
            self._awaiting_teardown[inflight] = outcomes
            raised = inflight.tear_down((inflight.assignment.policy or self._policy).timeout)
            if self._awaiting_teardown.pop(inflight, None) is None:
                # `give_up_teardowns` has recorded the rows meanwhile.
                return
            outcomes = [with_teardown_errors(outcome, raised) for outcome in outcomes]
            self._setup.release_context(inflight.context)
        inflight.entry.completed()
        error = inflight.record(outcomes)
        if error is not None:
            inflight.assignment.stop(error)
        self._completed(inflight.assignment)


def _without_overlap(item: Runnable, window: Window) -> Window:
    """The window of an evaluation: of one row at a time if a fixture can serve only one."""
    exclusive = item.exclusive_fixture_names()
    if not exclusive or window.most <= 1:
        return window
    warnings.warn(
        f"{', '.join(exclusive)} can serve one row at a time, so that rows do not overlap here",
        pytest.PytestWarning,
        stacklevel=2,
    )
    return FixedWindow(1)


def _traced(function: Callable[..., Any], span: RowSpan, *, is_async: bool) -> Callable[..., Any]:
    """The function, during which the span of its row is the current one."""

    def call(**arguments: Any) -> Any:
        with span.current():
            return function(**arguments)

    async def call_async(**arguments: Any) -> Any:
        with span.current():
            return await function(**arguments)

    return call_async if is_async else call


def _in_batch_mode(function: Callable[..., Any], *, is_async: bool) -> Callable[..., Any]:
    """The function, during which calls are refused that belong to no row."""

    def call(**arguments: Any) -> Any:
        with ROWS_IN_BATCH_MODE:
            return function(**arguments)

    async def call_async(**arguments: Any) -> Any:
        with ROWS_IN_BATCH_MODE:
            return await function(**arguments)

    return call_async if is_async else call


def _values(rows: Sequence[Row], *, batch: bool) -> dict[str, Any]:
    if not batch:
        return dict(rows[0].values)
    return {column: [row.values[column] for row in rows] for column in rows[0].values}


def _is_infrastructures(outcome: Outcome) -> bool:
    return outcome.error is not None and outcome.error.error_class is ErrorClass.INFRASTRUCTURE

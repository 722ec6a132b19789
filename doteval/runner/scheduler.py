"""The conductor: takes assignments of rows and keeps as many rows in flight as allowed.

Set-up, teardown and sync rows happen on one thread, the one that calls `serve` or `work_off`, so
that fixtures and rows that are bound to a thread (SQLite connections, GPU contexts) find their own
again. Async rows run on the event loop; sync rows that may overlap run in a pool of threads.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from doteval.concurrency import Adaptive
from doteval.core.metering import Meter, metering, placed, set_up_place
from doteval.core.results import ErrorClass, Outcome, Row
from doteval.errors import UsageError
from doteval.pytest_runtime.evaluation_setup import LoadFailedError
from doteval.pytest_runtime.row_context import Call
from doteval.runner.admission import Admission
from doteval.runner.assignments import Assignment, Noted, Runnable, Staging, WindingDownError
from doteval.runner.async_pool import Begin, LoopWindow
from doteval.runner.calls import (
    CallPolicy,
    call,
    call_async,
    call_batch,
    call_batch_async,
    failed_before_call,
    with_teardown_errors,
)
from doteval.runner.concurrency_windows import FixedWindow, Window, window_for
from doteval.runner.error_classes import ends_command
from doteval.runner.event_loop import LoopThread
from doteval.runner.inflight_calls import NOWHERE, Flight
from doteval.runner.loop_watchdog import LoopWatch
from doteval.runner.time_slices import Turn

# Seconds after which the serving thread hears of rows that have ended on the loop, while more are lined up there.
_TELL_SECONDS = 0.01


class Conductor:
    """See the module's docstring. Public methods may be called from any thread, except the two that serve."""

    def __init__(
        self,
        stage: Staging,
        loop: LoopThread,
        *,
        policy: CallPolicy | None = None,
        concurrency: int | Adaptive | None = None,
    ) -> None:
        self._stage = stage
        self._loop = loop
        self._policy = policy or CallPolicy()
        self._concurrency = concurrency
        self._door = threading.Lock()
        self._closed = False
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._assignments: deque[Assignment] = deque()
        self._in_flight = 0
        self._winding_down = False
        # The evaluation that what follows belongs to.
        self._prepared: Runnable | None = None
        self._turn = Turn()
        self._window: Window = FixedWindow(1)
        self._row_policy = self._policy
        self._loop_window: LoopWindow | None = None
        self._loop_watch: LoopWatch | None = None
        self._threads: ThreadPoolExecutor | None = None
        # Calls that have ended and whose fixtures are still to be torn down.
        self._landed: dict[Flight, list[Outcome]] = {}
        # Flights that are over, with what recording them raised: the serving thread is still to hear of them.
        self._down: deque[tuple[Flight, list[Outcome], BaseException | None]] = deque()
        self._admission = Admission(self.withdraw)

    def assign(self, assignment: Assignment) -> None:
        """Add rows to be run, after those that were assigned before.

        Once `serve` has returned, the assignment ends at once, with WindingDownError.
        """
        with self._door:
            if not self._closed:
                self._inbox.put(functools.partial(self._accept, assignment))
                return
        assignment.ended(WindingDownError())

    def post(self, callback: Callable[[], None]) -> None:
        """Have something done on the thread that sets up fixtures, between rows."""
        self._inbox.put(callback)

    def wind_down(self) -> None:
        """Begin no further row; `serve` returns when those in flight are recorded."""
        self._inbox.put(self._begin_to_wind_down)

    def withdraw(self, assignment: Assignment, why: BaseException) -> None:
        """Begin no further row of an assignment. It ends, with `why`, when its rows in flight have ended."""
        # Seen at once by rows that wait on the loop, however busy the serving thread is.
        assignment.withdrawn = True
        self._inbox.put(functools.partial(self._withdraw, assignment, why))

    def give_up_teardowns(self, why: BaseException) -> None:
        """Record the rows whose calls have ended and whose fixtures are still to be torn down, with `why` they are not.

        For the time when the thread that tears down is stuck; nothing can be done with it afterwards.
        """
        while self._landed:
            flight, outcomes = self._landed.popitem()
            flight.record([with_teardown_errors(outcome, [why]) for outcome in outcomes])

    def serve(self) -> None:
        """Work until `wind_down` is called and the rows in flight have ended."""
        try:
            self._work_until(lambda: self._winding_down and not self._assignments)
        except BaseException as error:
            # Whoever waits for rows must hear that nobody serves any more.
            self._winding_down = True
            for assignment in list(self._assignments):
                self._assignments.remove(assignment)
                assignment.ended(error)
            raise
        finally:
            with self._door:
                self._closed = True
            # What came in until the door was closed.
            self._drain_inbox()

    def work_off(self, assignment: Assignment) -> None:
        """Work until one assignment has ended.

        If it is interrupted (Ctrl-C), async rows in flight are cancelled, those in threads end first, and all
        are torn down, before the interruption is raised again.
        """
        try:
            self._accept(assignment)
            self._work_until(lambda: assignment not in self._assignments)
        except BaseException:
            self._abandon()
            raise

    def rows_at_once(self, item: Runnable | None = None) -> int:
        """How many rows may run at the same time now; of an evaluation that is not on the stage, to begin with.

        Of the one on the stage more may have been begun: they are lined up on the loop.
        """
        on_stage = self._prepared
        item = item or on_stage
        window = self._window if item is None or item is on_stage else self._window_of(item)
        return window.size * ((item.spec.batch_size if item is not None else None) or 1)

    # What follows runs on the serving thread, except for what is said to run elsewhere.

    def _work_until(self, over: Callable[[], bool]) -> None:
        self._fill()
        while not over():
            self._inbox.get()()
            self._fill()
        self._close_threads()

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _fill(self) -> None:
        """Begin rows until the window is full or nothing is left to begin."""
        while True:
            self._drain_inbox()
            assignment = self._turn.following(self._assignments, self._prepared)
            if assignment is None or self._winding_down:
                return
            if self._admission.has_refused(assignment):
                # It is withdrawn, and no fixture is set up for it.
                continue
            if assignment.item is not self._prepared:
                if self._in_flight:
                    return
                self._change_stage(assignment)
            elif self._in_flight and self._must_wait(assignment):
                return
            elif self._window.admits(self._in_flight - self._ahead):
                self._begin(assignment)
            else:
                return

    def _must_wait(self, assignment: Assignment) -> bool:
        """Whether a row that is to run alone is in flight, or would not be alone."""
        return assignment.alone or any(each.alone and each.in_flight for each in self._assignments)

    @property
    def _ahead(self) -> int:
        # The loop takes its next row from these, without waiting for this thread.
        fixed = isinstance(self._window, FixedWindow) and self._loop_window is not None
        return self._window.size if fixed and self._stage.shared_call is not None else 0

    def _change_stage(self, following: Assignment) -> None:
        """Set the evaluation of an assignment up, unless pytest has done so, or end its assignments."""
        item = following.item
        # Whatever comes of it, the evaluation before is no longer on the stage.
        self._prepared = None
        began = time.monotonic()
        meter = Meter(set_up_place(following.name), following.cache)
        try:
            with metering(meter):
                self._stage.enter(item)
            self._prepare(item)
            self._turn.begin(time.monotonic() - began)
        except (LoadFailedError, UsageError) as error:
            for assignment in [each for each in self._assignments if each.item is item]:
                assignment.drawn, assignment.cut = True, error
                self._end_if_over(assignment)
        finally:
            following.pay(meter)

    def _prepare(self, item: Runnable) -> None:
        self._close_threads()
        self._row_policy = self._policy.with_retries(item.spec.retries)
        self._window = self._window_of(item)
        exclusive = item.exclusive_fixture_names()
        if exclusive and self._window.most > 1:
            warnings.warn(
                f"{', '.join(exclusive)} can serve one row at a time, so that rows do not overlap here",
                pytest.PytestWarning,
                stacklevel=2,
            )
            self._window = FixedWindow(1)
        if item.is_async:
            self._loop_window = LoopWindow(self._loop, self._window.size)
        elif self._window.most > 1:
            self._threads = ThreadPoolExecutor(self._window.most, thread_name_prefix="doteval-row")
        self._prepared = item

    def _window_of(self, item: Runnable) -> Window:
        return window_for(item.spec.concurrency, self._concurrency, is_async=item.is_async)

    def _begin(self, assignment: Assignment) -> None:
        """Begin one call: with the next row, or with the next rows if the evaluation takes batches."""
        self._turn.use()
        rows = self._draw(assignment)
        if not rows:
            self._end_if_over(assignment)
            return
        noted = assignment.note(rows) if assignment.note is not None else NOWHERE
        shared = self._stage.shared_call
        if shared is not None:
            self._begin_call(Flight(assignment, rows, None, noted), shared)
            return
        lane = self._stage.take_lane()
        meter = Meter(assignment.place_of(rows), assignment.cache)
        flight = Flight(assignment, rows, lane, noted, meter)
        try:
            with metering(meter):
                own = lane.set_up()
        except BaseException as error:
            if ends_command(error):
                flight.tear_down()
                raise
            failed = failed_before_call(error, "at the set-up of a fixture")
            self._finish(flight, [failed] * len(rows))
            return
        self._begin_call(flight, own)

    def _draw(self, assignment: Assignment) -> Sequence[Row]:
        """The rows of the next call; none if there are no more, or the next one is too short."""
        rows: list[Row] = []
        columns = len(assignment.item.spec.columns)
        while not assignment.drawn and len(rows) < (assignment.item.spec.batch_size or 1):
            try:
                row = next(assignment.rows)
            except StopIteration:
                assignment.drawn = True
            except BaseException as error:
                # A dataset may raise anything, pytest.skip too; told to whoever assigned.
                if ends_command(error):
                    raise
                assignment.drawn, assignment.cut = True, error
            else:
                if len(row.values) == columns:
                    rows.append(row)
                    continue
                short = ValueError(f"the row has {len(row.values)} values for {columns} columns")
                failed = failed_before_call(short, "before the call")
                self._finish(Flight(assignment, (row,), None, NOWHERE), [failed])
                if not rows:
                    break
        return rows

    def _begin_call(self, flight: Flight, what: Call) -> None:
        policy, size = self._policy_of(flight.assignment), flight.assignment.item.spec.batch_size
        arguments = {**what.fixtures, **_values(flight.rows, batch=size is not None)}
        place = flight.assignment.place_of(flight.rows)
        function = placed(what.function, place, flight.assignment.cache)
        if self._loop_window is None and self._threads is None:
            if not self._admission.admits(flight.assignment):
                flight.give_up()
                return
            self._window.begun()
            if policy.timeout is not None:
                flight.noted.called(policy.timeout)
            try:
                if size is None:
                    outcomes = [call(function, arguments, policy)]
                else:
                    outcomes = call_batch(function, arguments, policy, len(flight.rows))
            except BaseException:
                flight.tear_down()
                raise
            if policy.timeout is not None:
                flight.noted.returned()
            self._finish(flight, outcomes)
            return
        flight.assignment.in_flight += 1
        self._in_flight += 1
        self._window.begun()
        land = functools.partial(self._land, flight)
        if self._loop_window is not None:
            begin: Begin
            if size is None:
                begin = functools.partial(call_async, function, arguments, policy)
            else:
                begin = functools.partial(call_batch_async, function, arguments, policy, len(flight.rows))
            self._loop_window.feed(functools.partial(self._begin_on_loop, flight, begin, policy.timeout), land)
        else:
            assert self._threads is not None
            admits = functools.partial(self._admission.admits, flight.assignment)
            rows = size and len(flight.rows)
            self._threads.submit(_call_and_land, admits, function, arguments, policy, rows, flight.noted, land)

    async def _begin_on_loop(self, flight: Flight, begin: Begin, limit: float | None) -> Any:
        if not await self._admission.admits_on_loop(flight.assignment):
            return None
        if limit is None:
            return await begin()
        # The watch over the loop ends what never awaits, and needs up to that long to see it.
        flight.noted.called(limit + LoopWatch.latest(limit))
        # A loop that turns ends its rows in time.
        turned = self._loop.loop.call_later(limit, flight.noted.returned)
        try:
            return await begin()
        finally:
            turned.cancel()
            flight.noted.returned()

    def _policy_of(self, assignment: Assignment) -> CallPolicy:
        if assignment.policy is None:
            policy = self._row_policy
        else:
            policy = assignment.policy.with_retries(assignment.item.spec.retries)
        if policy.timeout is not None and self._loop_window is not None and self._loop_watch is None:
            self._loop_watch = LoopWatch(self._loop, policy.timeout)
        return policy

    def _land(self, flight: Flight, landed: Outcome | list[Outcome] | BaseException | None) -> None:
        """A call has ended, on the loop's thread or one of the pool. None: it never began, or was cancelled."""
        if isinstance(landed, BaseException):
            landed = [failed_before_call(landed, "the row cancelled its own task")] * len(flight.rows)
        outcomes = [landed] if isinstance(landed, Outcome) else landed
        if flight.lane is None and outcomes is not None:
            # Recorded here, so that the thread that sets up fixtures has less to do.
            flight.noted.landed()
            self._down.append((flight, outcomes, flight.record(outcomes)))
            self._tell_of_landed()
        else:
            if outcomes is not None:
                self._landed[flight] = outcomes
            self._inbox.put(functools.partial(self._after_call, flight, outcomes))

    def _tell_of_landed(self) -> None:
        """Tell the serving thread that a flight is down: at once if the loop needs more rows, else of several together.

        A thread that is woken for each would take as long for that as for its work.
        """
        lined_up = 0 if self._loop_window is None else self._loop_window.waiting
        if not 0 < self._ahead < 2 * lined_up:
            self._inbox.put(self._after_flights)
        elif len(self._down) == 1:
            self._loop.loop.call_later(_TELL_SECONDS, self._inbox.put, self._after_flights)

    def _after_flights(self) -> None:
        while self._down:
            self._after_flight(*self._down.popleft())

    def _after_call(self, flight: Flight, outcomes: list[Outcome] | None) -> None:
        if outcomes is not None:
            self._finish(flight, outcomes)
        else:
            flight.give_up()
        self._after_flight(flight, outcomes, None)

    def _after_flight(self, flight: Flight, outcomes: list[Outcome] | None, error: BaseException | None) -> None:
        assignment = flight.assignment
        assignment.in_flight -= 1
        self._in_flight -= 1
        self._window.ended(infrastructure_failed=outcomes is not None and any(map(_is_infrastructures, outcomes)))
        if self._loop_window is not None:
            self._loop_window.limit = self._window.size
        if error is not None:
            assignment.drawn, assignment.cut = True, error
        self._end_if_over(assignment)

    def _finish(self, flight: Flight, outcomes: list[Outcome]) -> None:
        if flight.lane is not None:
            self._landed[flight] = outcomes
            raised = flight.tear_down((flight.assignment.policy or self._row_policy).timeout)
            if self._landed.pop(flight, None) is None:
                # It took so long that it was given up: the row is recorded.
                return
            outcomes = [with_teardown_errors(outcome, raised) for outcome in outcomes]
            self._stage.give_back(flight.lane)
        flight.noted.landed()
        error = flight.record(outcomes)
        if error is not None:
            flight.assignment.drawn, flight.assignment.cut = True, error
        self._end_if_over(flight.assignment)

    def _accept(self, assignment: Assignment) -> None:
        if self._winding_down:
            assignment.ended(WindingDownError())
            return
        self._assignments.append(assignment)

    def _withdraw(self, assignment: Assignment, why: BaseException) -> None:
        assignment.drawn, assignment.cut = True, assignment.cut or why
        self._end_if_over(assignment)

    def _begin_to_wind_down(self) -> None:
        self._winding_down = True
        if self._loop_window is not None:
            self._loop_window.drop_waiting()
        for assignment in list(self._assignments):
            if not assignment.drawn:
                assignment.drawn, assignment.cut = True, WindingDownError()
            self._end_if_over(assignment)

    def _end_if_over(self, assignment: Assignment) -> None:
        if assignment.drawn and not assignment.in_flight and assignment in self._assignments:
            self._assignments.remove(assignment)
            assignment.ended(assignment.cut)

    def _abandon(self) -> None:
        self._winding_down = True
        if self._loop_window is not None:
            self._loop_window.cancel()
        while self._in_flight:
            self._inbox.get()()
        self._assignments.clear()
        self._close_threads()

    def _close_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._admission.close()
        if self._loop_watch is not None:
            self._loop_watch.close()
        self._threads = None
        self._loop_window = None
        self._loop_watch = None
        self._prepared = None


def _values(rows: Sequence[Row], *, batch: bool) -> dict[str, Any]:
    if not batch:
        return dict(rows[0].values)
    return {column: [row.values[column] for row in rows] for column in rows[0].values}


def _is_infrastructures(outcome: Outcome) -> bool:
    return outcome.error is not None and outcome.error.error_class is ErrorClass.INFRASTRUCTURE


def _call_and_land(
    admits: Callable[[], bool],
    function: Callable[..., Any],
    arguments: dict[str, Any],
    policy: CallPolicy,
    rows: int | None,
    noted: Noted,
    land: Callable[[Outcome | list[Outcome] | None], None],
) -> None:
    landed: Outcome | list[Outcome] | None = None
    try:
        if admits():
            if policy.timeout is not None:
                noted.called(policy.timeout)
            landed = (
                call(function, arguments, policy) if rows is None else call_batch(function, arguments, policy, rows)
            )
    except BaseException as error:  # noqa: BLE001 - Ctrl-C reaches the main thread only; elsewhere it is the row's
        landed = [failed_before_call(error, "the row raised")] * (rows or 1)
    if policy.timeout is not None:
        noted.returned()
    land(landed)

"""The scheduler decides which row runs next in a process, and keeps as many rows in flight as allowed.

Set-up, teardown and sync rows run on one thread, the one that calls `serve` or `run`, so that fixtures and rows
that are bound to a thread (SQLite connections, GPU contexts) stay usable. Async rows run on the event loop; sync
rows that may overlap run in a pool of threads.
"""

from __future__ import annotations

import contextlib
import functools
import math
import queue
import threading
from collections import deque
from collections.abc import Callable

from doteval.concurrency import Adaptive
from doteval.core import clocks
from doteval.core.metering import Meter, metering, setup_usage_scope
from doteval.core.stop_signals import rows_finish_first
from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.runner.admission import Admission, Permits
from doteval.runner.assignments import Assignment, EvaluationFixtures, LoadFailedError, Runnable, WindingDownError
from doteval.runner.call_runner import CallRunner
from doteval.runner.calls import CallPolicy
from doteval.runner.concurrency_windows import Window, window_for
from doteval.runner.event_loop import LoopThread
from doteval.runner.time_slices import TimeSlice

# When a run is interrupted: seconds for which rows in flight are waited for without a word, and between two lines then.
_SILENT_SECONDS = 0.5
_SAY_SECONDS = 10.0


class Scheduler:
    """Runs assignments of rows. Public methods may be called from any thread, except `serve` and `run`.

    `policy`: how rows are called, unless their assignment has a policy. `concurrency`: rows in flight of
    evaluations that do not set it themselves.
    """

    def __init__(
        self,
        setup: EvaluationFixtures,
        loop: LoopThread,
        *,
        policy: CallPolicy | None = None,
        concurrency: int | Adaptive | None = None,
    ) -> None:
        self._setup = setup
        self._policy = policy or CallPolicy()
        self._concurrency = concurrency
        self._closing_lock = threading.Lock()
        self._closed = False
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._assignments: deque[Assignment] = deque()
        self._winding_down = False
        # Permits that there are too few of until they wake: their rows let those of other experiments go first.
        self._short: set[Permits | None] = set()
        # The evaluation that is set up.
        self._current: Runnable | None = None
        self._slice = TimeSlice()
        self._admission = Admission(self.withdraw)
        self._calls = CallRunner(setup, loop, self._admission, self._inbox.put, self._end_if_over)

    def assign(self, assignment: Assignment) -> None:
        """Add rows to be run, after those that were assigned before.

        Once `serve` has returned, the assignment ends at once, with WindingDownError.
        """
        with self._closing_lock:
            if not self._closed:
                self._inbox.put(functools.partial(self._accept, assignment))
                return
        assignment.ended(WindingDownError())

    def post(self, callback: Callable[[], None]) -> None:
        """Have a function called on the thread that sets up fixtures, between rows."""
        self._inbox.put(callback)

    def wind_down(self) -> None:
        """Begin no further row; `serve` returns when those in flight are recorded."""
        self._inbox.put(self._begin_to_wind_down)

    def withdraw(self, assignment: Assignment, why: BaseException) -> None:
        """Begin no further row of an assignment. It ends, with `why`, when its rows in flight have ended."""
        # Rows that wait on the loop see the flag at once, however busy the scheduler's thread is.
        assignment.withdrawn = True
        self._inbox.put(functools.partial(self._withdraw, assignment, why))

    def give_up_teardowns(self, why: BaseException) -> None:
        """Record the rows whose calls have ended without tearing their fixtures down; their errors say `why`.

        For when the thread that tears down is stuck. The scheduler cannot be used afterwards.
        """
        self._calls.give_up_teardowns(why)

    def serve(self) -> None:
        """Work until `wind_down` is called and the rows in flight have ended."""
        try:
            self._work_until(lambda: self._winding_down and not self._assignments)
        except BaseException as error:
            # Threads that wait for rows must hear that nobody runs them any more.
            self._winding_down = True
            for assignment in list(self._assignments):
                self._assignments.remove(assignment)
                assignment.ended(error)
            raise
        finally:
            with self._closing_lock:
                self._closed = True
            # Assignments may have come in before the scheduler was closed.
            self._drain_inbox()

    def run(
        self,
        assignment: Assignment,
        *,
        drain_seconds: float = math.inf,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        """Work until one assignment has ended.

        If that is interrupted (Ctrl-C), async rows in flight are cancelled, rows in threads run to their end, and
        all are torn down before the interruption is raised again. Rows that have not ended after `drain_seconds`, or at
        a second interruption, are left behind: they stay pending, and the scheduler cannot be used any more.

        on_message: called with lines for the user that say what is waited for
        """
        try:
            self._accept(assignment)
            self._work_until(lambda: assignment not in self._assignments)
        except BaseException:
            self._abort(drain_seconds, on_message or (lambda _: None))
            raise

    def rows_at_once(self, item: Runnable | None = None) -> int:
        """How many rows of an evaluation may run at the same time now; None is the evaluation that is set up.

        Of an evaluation that is not set up, it is the number to begin with. Of the one that is, more rows than this
        may have been begun, since some of them wait on the loop.
        """
        current = self._current
        item = item or current
        window = self._calls.window if item is None or item is current else self._window_of(item)
        return window.size * ((item.spec.batch_size if item is not None else None) or 1)

    # The methods below run on the scheduler's thread.

    def _work_until(self, over: Callable[[], bool]) -> None:
        self._fill()
        while not over():
            self._inbox.get()()
            self._fill()
        self._close_evaluation()

    def _drain_inbox(self) -> None:
        while not self._inbox.empty():
            self._inbox.get()()

    def _fill(self) -> None:
        """Begin rows until the window is full, or no row is left that may begin."""
        set_up: Assignment | None = None
        while True:
            self._drain_inbox()
            ready = (each for each in self._assignments if each.permits not in self._short)
            assignment = self._slice.next_assignment(ready, self._current)
            if assignment is None or self._winding_down:
                return
            if self._admission.has_refused(assignment):
                # It is withdrawn now, and no fixture is set up for it.
                continue
            is_current = assignment.item is self._current
            if self._must_wait(assignment) if is_current else self._calls.in_flight:
                return
            if assignment.permits is not None and assignment.is_over():
                # Before it asks for permits: to end, it needs none.
                self._end_if_over(assignment)
            elif not assignment.may_begin(self._wake):
                if assignment is set_up:
                    # The set-up took longer than permits last. It is woken in a moment, before another one is set up.
                    return
                self._short.add(assignment.permits)
            elif is_current:
                self._begin(assignment)
            else:
                self._change_evaluation(assignment)
                set_up = assignment

    def _wake(self) -> None:
        """Have `_fill` ask for permits again. Called on any thread."""
        self._inbox.put(self._short.clear)

    def _must_wait(self, assignment: Assignment) -> bool:
        """Whether the window is full, or a row that is to run alone is in flight or would not be alone."""
        if self._calls.in_flight and (
            assignment.alone or any(each.alone and each.in_flight for each in self._assignments)
        ):
            return True
        return not self._calls.has_room()

    def _begin(self, assignment: Assignment) -> None:
        self._slice.use()
        rows = assignment.draw(self._calls.reject)
        if rows:
            self._calls.begin(assignment, rows)
        else:
            self._end_if_over(assignment)

    def _change_evaluation(self, assignment: Assignment) -> None:
        """Set up the evaluation of an assignment. If that fails, end all assignments of the evaluation."""
        item = assignment.item
        # Even if the set-up fails, the last evaluation is no longer set up.
        self._current = None
        began = clocks.monotonic()
        meter = Meter(setup_usage_scope(assignment.name), assignment.cache)
        try:
            with metering(meter):
                self._setup.enter(item)
            self._close_evaluation()
            self._calls.open(item, self._window_of(item), self._policy.with_retries(item.spec.retries))
            self._current = item
            self._slice.begin(clocks.monotonic() - began)
        except (LoadFailedError, UsageError) as error:
            for each in [each for each in self._assignments if each.item is item]:
                each.stop(error)
                self._end_if_over(each)
        finally:
            assignment.report_lost_usage(meter)

    def _close_evaluation(self) -> None:
        self._calls.close()
        self._current = None

    def _window_of(self, item: Runnable) -> Window:
        return window_for(item.spec.concurrency, self._concurrency, is_async=item.is_async)

    def _accept(self, assignment: Assignment) -> None:
        if self._winding_down:
            assignment.ended(WindingDownError())
            return
        self._assignments.append(assignment)

    def _withdraw(self, assignment: Assignment, why: BaseException) -> None:
        assignment.stop(assignment.error or why)
        self._end_if_over(assignment)

    def _begin_to_wind_down(self) -> None:
        self._winding_down = True
        for assignment in list(self._assignments):
            if not assignment.exhausted:
                assignment.stop(WindingDownError())
            self._end_if_over(assignment)

    def _end_if_over(self, assignment: Assignment) -> None:
        if assignment.exhausted and not assignment.in_flight and assignment in self._assignments:
            self._assignments.remove(assignment)
            assignment.ended(assignment.error)

    def _abort(self, drain_seconds: float, on_message: Callable[[str], None]) -> None:
        self._winding_down = True
        self._calls.cancel()
        have_ended = False
        try:
            have_ended = self._wait_for_rows(drain_seconds, on_message)
        finally:
            self._assignments.clear()
            if have_ended:
                self._close_evaluation()
            else:
                self._calls.abandon()

    def _wait_for_rows(self, seconds: float, on_message: Callable[[str], None]) -> bool:
        """Wait until the rows in flight have ended, and say so every ten seconds. False if they take too long."""
        now = clocks.monotonic()
        end, next_line, is_said = now + seconds, now + _SILENT_SECONDS, False
        while self._calls.in_flight:
            now, rows = clocks.monotonic(), counted(self._calls.in_flight, "row")
            if now >= end:
                on_message(f"not waiting any longer for {rows} in flight; without a result, rows stay pending")
                return False
            if now >= next_line:
                next_line = now + _SAY_SECONDS
                on_message(f"waiting for {rows} in flight" if is_said else f"stopping: {rows_finish_first(seconds)}")
                is_said = True
            with contextlib.suppress(queue.Empty):
                self._inbox.get(timeout=max(0.0, min(end, next_line) - now))()
        return True

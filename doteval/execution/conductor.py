"""The conductor: takes assignments of rows and keeps as many rows in flight as allowed.

Set-up, teardown and sync rows happen on one thread, the one that calls `serve` or `work_off`, so
that fixtures and rows that are bound to a thread (SQLite connections, GPU contexts) find their own
again. Async rows run on the event loop; sync rows that may overlap run in a pool of threads.
"""

from __future__ import annotations

import functools
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from doteval.execution.calls import CallPolicy, call, call_async, failed_before_call, with_teardown_errors
from doteval.execution.event_loop import LoopThread
from doteval.execution.failures import ends_command
from doteval.execution.items import EvaluationItem
from doteval.execution.lanes import Call, Lane
from doteval.execution.loop_window import LoopWindow
from doteval.execution.stage import LoadFailedError, Stage
from doteval.results import Outcome, Row

# Rows in flight of an async evaluation where nothing else is said.
ASYNC_CONCURRENCY = 10


class WindingDownError(Exception):
    """The process is asked to leave: the rows that had not begun stay pending."""


@dataclass(eq=False)
class Assignment:
    """Rows of one evaluation to be run.

    `record` is called for every row with its outcome, on whichever thread it ended; `ended` once,
    after the last of them, with None or with what cut the assignment short.
    """

    item: EvaluationItem
    rows: Iterator[Row]
    record: Callable[[Row, Outcome], None]
    ended: Callable[[BaseException | None], None]
    in_flight: int = field(default=0, init=False)
    drawn: bool = field(default=False, init=False)
    cut: BaseException | None = field(default=None, init=False)


class Conductor:
    """See the module's docstring. Public methods may be called from any thread, except the two that serve."""

    def __init__(
        self,
        stage: Stage,
        loop: LoopThread,
        *,
        policy: CallPolicy | None = None,
        concurrency: int | None = None,
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
        self._window = 1
        self._loop_window: LoopWindow | None = None
        self._threads: ThreadPoolExecutor | None = None

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
        """Work until one assignment has ended."""
        self._accept(assignment)
        self._work_until(lambda: assignment not in self._assignments)

    def concurrency_of(self, item: EvaluationItem) -> int:
        """How many rows of an evaluation may be in flight in this process."""
        own = item.spec.concurrency
        if isinstance(own, int):
            return own
        if self._concurrency is not None:
            return self._concurrency
        return ASYNC_CONCURRENCY if item.is_async else 1

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
            assignment = next((each for each in self._assignments if not each.drawn), None)
            if assignment is None or self._winding_down:
                return
            if assignment.item is not self._stage.item:
                if self._in_flight:
                    return
                self._change_stage(assignment.item)
            elif self._in_flight < self._window + self._ahead:
                self._begin_row(assignment)
            else:
                return

    @property
    def _ahead(self) -> int:
        # The loop takes its next row from these, without waiting for this thread.
        return self._window if self._loop_window is not None and self._stage.shared_call is not None else 0

    def _change_stage(self, item: EvaluationItem) -> None:
        """Set the evaluation up, or end its assignments."""
        try:
            self._stage.enter(item)
        except LoadFailedError as error:
            for assignment in [each for each in self._assignments if each.item is item]:
                assignment.drawn, assignment.cut = True, error
                self._end_if_over(assignment)
        else:
            self._prepare(item)

    def _prepare(self, item: EvaluationItem) -> None:
        self._close_threads()
        self._window = self.concurrency_of(item)
        if item.is_async:
            self._loop_window = LoopWindow(self._loop, self._window)
        elif self._window > 1:
            self._threads = ThreadPoolExecutor(self._window, thread_name_prefix="doteval-row")

    def _begin_row(self, assignment: Assignment) -> None:
        try:
            row = next(assignment.rows)
        except StopIteration:
            assignment.drawn = True
            self._end_if_over(assignment)
            return
        except BaseException as error:
            # A dataset may raise anything, pytest.skip too; told to whoever assigned.
            if ends_command(error):
                raise
            assignment.drawn, assignment.cut = True, error
            self._end_if_over(assignment)
            return
        if len(row.values) < len(assignment.item.spec.columns):
            short = ValueError(f"the row has {len(row.values)} values for {len(assignment.item.spec.columns)} columns")
            self._finish_row(assignment, row, None, failed_before_call(short, "before the call"))
            return
        shared = self._stage.shared_call
        if shared is not None:
            self._begin_call(assignment, row, shared, None)
            return
        lane = self._stage.take_lane()
        try:
            own = lane.set_up()
        except BaseException as error:
            if ends_command(error):
                lane.tear_down()
                raise
            self._finish_row(assignment, row, lane, failed_before_call(error, "at the set-up of a fixture"))
            return
        self._begin_call(assignment, row, own, lane)

    def _begin_call(self, assignment: Assignment, row: Row, what: Call, lane: Lane | None) -> None:
        arguments = {**what.fixtures, **row.values}
        if self._loop_window is None and self._threads is None:
            outcome = call(what.function, arguments, self._policy)
            self._finish_row(assignment, row, lane, outcome)
            return
        assignment.in_flight += 1
        self._in_flight += 1
        land = functools.partial(self._land, assignment, row, lane)
        if self._loop_window is not None:
            self._loop_window.feed(functools.partial(call_async, what.function, arguments, self._policy), land)
        else:
            assert self._threads is not None
            self._threads.submit(_call_and_land, what.function, arguments, self._policy, land)

    def _land(self, assignment: Assignment, row: Row, lane: Lane | None, outcome: Outcome | None) -> None:
        """A call has ended, on the loop's thread or one of the pool. None: it never began."""
        if lane is None and outcome is not None:
            error = _recorded(assignment, row, outcome)
            self._inbox.put(functools.partial(self._after_flight, assignment, error))
        else:
            self._inbox.put(functools.partial(self._after_call, assignment, row, lane, outcome))

    def _after_call(self, assignment: Assignment, row: Row, lane: Lane | None, outcome: Outcome | None) -> None:
        if outcome is not None:
            self._finish_row(assignment, row, lane, outcome)
        elif lane is not None:
            lane.tear_down()
        self._after_flight(assignment, None)

    def _after_flight(self, assignment: Assignment, error: BaseException | None) -> None:
        assignment.in_flight -= 1
        self._in_flight -= 1
        if error is not None:
            assignment.drawn, assignment.cut = True, error
        self._end_if_over(assignment)

    def _finish_row(self, assignment: Assignment, row: Row, lane: Lane | None, outcome: Outcome) -> None:
        if lane is not None:
            outcome = with_teardown_errors(outcome, lane.tear_down())
            self._stage.give_back(lane)
        error = _recorded(assignment, row, outcome)
        if error is not None:
            assignment.drawn, assignment.cut = True, error
            self._end_if_over(assignment)

    def _accept(self, assignment: Assignment) -> None:
        if self._winding_down:
            assignment.ended(WindingDownError())
            return
        self._assignments.append(assignment)
        # Local pytest has set the evaluation up before it assigns its rows.
        if assignment.item is self._stage.item and not self._in_flight:
            self._prepare(assignment.item)

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

    def _close_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        self._threads = None
        self._loop_window = None


def _call_and_land(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    policy: CallPolicy,
    land: Callable[[Outcome | None], None],
) -> None:
    try:
        outcome = call(function, arguments, policy)
    except BaseException as error:  # noqa: BLE001 - Ctrl-C reaches the main thread only; elsewhere it is the row's
        outcome = failed_before_call(error, "the row raised")
    land(outcome)


def _recorded(assignment: Assignment, row: Row, outcome: Outcome) -> BaseException | None:
    try:
        assignment.record(row, outcome)
    except Exception as error:  # noqa: BLE001 - handed to whoever assigned the rows
        return error
    return None

"""The budget share: lets rows begin only if those in flight in all processes are likely to stay within the budget.

Each process has permits to begin so many rows, for which it has reserved a part of the budget in the store: for the
rows that it has in flight, and for the permits. What a row costs is known when it has ended. Until then, it is taken to
be the mean of the experiment's rows that have ended. While much is left, a process reserves more than it needs, so that
it writes seldom; when little is left, all it does not need is for the others.

A row that is dearer than what is left still runs, alone, and uses the budget up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from doteval.core.budgets import Budget
from doteval.core.experiments import Experiment
from doteval.errors import StoreError
from doteval.runner.inflight_calls import RowCounter
from doteval.store import BudgetState, Store

logger = logging.getLogger("doteval.worker")

# Seconds between two looks at the store while rows are in flight or wait.
_LOOK_SECONDS = 0.25
# Permits that a process asks for first.
_FIRST = 8
# Much is left if so many times the reserved rows fit.
_MUCH = 4


class Shares(Protocol):
    """The shares of one experiment in the store, as one process sees them. Both raise StoreError."""

    def look(self) -> BudgetState:
        """What was spent, on how many rows, and what others have reserved."""

    def reserve(self, rows: Callable[[BudgetState], int]) -> tuple[BudgetState, int]:
        """Replace the share of this process by what `rows` makes of the state. Returns both."""


class StoredShares:
    """The `Shares` of an experiment in a store.

    worker_id: returns the id of this process, which changes if it registers anew
    """

    def __init__(self, store: Store, experiment: Experiment, worker_id: Callable[[], int]) -> None:
        self._store = store
        self._experiment = experiment
        self._worker_id = worker_id

    def look(self) -> BudgetState:
        return self._store.budget_shares.look(self._experiment, self._worker_id())

    def reserve(self, rows: Callable[[BudgetState], int]) -> tuple[BudgetState, int]:
        return self._store.budget_shares.reserve(self._experiment, self._worker_id(), rows)


class BudgetShare:
    """Gives the rows of an experiment permits to begin, in one process. A `doteval.runner.admission.Permits`.

    unended: counts the rows of this process that have begun and are not stored
    ask_guard: called when the budget is used up, or the store is away; it decides whether a call may begin
    """

    def __init__(self, budget: Budget, shares: Shares, ask_guard: Callable[[], object]) -> None:
        self.unended = RowCounter()
        self._budget = budget
        self._shares = shares
        self._ask_guard = ask_guard
        self._lock = threading.Lock()
        self._permits = 0
        # Since the last look: permits that were taken, the most that were asked for in vain, and whom to wake.
        self._taken = 0
        self._wanted = 0
        self._wake: Callable[[], None] | None = None
        # What the store has.
        self._reserved = 0
        self._asked = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def take(self, rows: int, wake: Callable[[], None]) -> bool:
        """Take permits for so many rows. If there are too few, `wake` is called once there may be more. Never waits."""
        with self._lock:
            if self._permits >= rows:
                self._permits -= rows
                self._taken += rows
                return True
            self._wanted, self._wake = max(self._wanted, rows), wake
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._keep, name="doteval-budget", daemon=True)
                self._thread.start()
        self._asked.set()
        return False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is reserved, and no row waits."""
        return self._thread is None

    def close(self) -> None:
        """Give back what is reserved."""
        with self._lock:
            self._closed, thread = True, self._thread
        self._asked.set()
        if thread is not None:
            thread.join()

    def _keep(self) -> None:
        """Renew the permits until nothing is reserved and no row waits, or the share is closed."""
        while not self._closed:
            self._asked.wait(_LOOK_SECONDS)
            self._asked.clear()
            try:
                self.renew()
            except StoreError as error:
                _log(error)
                self._let_guard_decide()
            except Exception:
                # Without this thread, rows would wait for ever.
                logger.exception("rows in flight are not counted in the budget now")
                self._let_guard_decide()
            with self._lock:
                if not self._reserved and self._wake is None:
                    self._thread = None
                    return
        if self._reserved:
            try:
                self._shares.reserve(lambda _: 0)
            except StoreError as error:
                # It ends with this process.
                _log(error)

    def renew(self) -> None:
        """Look at the store, and make permits anew."""
        with self._lock:
            # Nobody begins a row between here and the new permits, so what is in flight cannot be missed.
            self._permits = 0
            wanted = max(2 * self._taken, _FIRST if self._wanted else 0, self._wanted)
            least = max(1, self._wanted)
            self._taken = 0
        mine = self.unended.rows

        def needed(state: BudgetState) -> int:
            left = self._budget.rows_left(state.spent, state.rows)
            if left is None:
                return mine + wanted
            room = left - state.reserved - mine
            if room < least:
                # Alone it may begin whatever is left.
                room = least if not mine and not state.reserved and wanted else 0
            return mine + min(wanted, room)

        state = self._shares.look()
        rows, left = needed(state), self._budget.rows_left(state.spent, state.rows)
        much = left is None or left >= _MUCH * (state.reserved + 2 * rows)
        if rows > self._reserved or (rows < self._reserved and (not much or not rows)):

            def reserve(now: BudgetState) -> int:
                return needed(now) * (2 if much else 1)

            state, self._reserved = self._shares.reserve(reserve)
            rows = min(needed(state), self._reserved)
        if self._budget.used_up_by(state.spent) is not None:
            self._let_guard_decide()
        elif rows > mine:
            self._give(rows - mine)

    def _let_guard_decide(self) -> None:
        """Have it refuse the rows that wait, or ask it before they begin."""
        self._ask_guard()
        with self._lock:
            waiting = self._wanted
        self._give(waiting)

    def _give(self, permits: int) -> None:
        with self._lock:
            self._permits = permits
            if not permits:
                return
            self._wanted, wake, self._wake = 0, self._wake, None
        if wake is not None:
            wake()


def _log(error: StoreError) -> None:
    if error.say_once():
        logger.warning("%s", error.message)

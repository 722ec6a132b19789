"""Budgets, asked of the result store: whether an experiment has spent what it may.

Every call asks a gate before it begins. While much is left, the gate asks the store a few times a second. When
what is left may soon be spent, it asks for every call, and only after the rows that have ended in this process
are stored. So what is spent beyond the budget is spent by rows that were in flight when it was used up.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from doteval.core.budgets import Budget, BudgetStop, Spent
from doteval.core.experiments import Experiment
from doteval.store import GroupWriter, Store

# Seconds for which an answer of the store is good while much is left.
_FRESH_SECONDS = 0.1
# Little is left if so many times the most that was spent between two samples would use it up. Before so many samples
# with spending in between, many times more: a process begins slowly.
_MARGIN = 4
_TELLING_SAMPLES = 10
_MARGIN_AT_FIRST = 100
# Seconds that a gate waits for rows to be stored, between two looks whether the process leaves.
_FLUSH_SECONDS = 0.5


def used_up(store: Store, experiment: Experiment, budget: Budget) -> BudgetStop | None:
    """Why an experiment may begin no further row within a budget, None if it may. Costs a query, whatever its size."""
    if not budget:
        return None
    return budget.used_up_by(store.usage.spent(experiment), lambda: store.usage.unpriced_models(experiment))


def budget_guard_for(
    store: Store,
    experiment: Experiment,
    budget: Budget,
    writer: GroupWriter,
    refuse: Callable[[str], BaseException],
    *,
    read_store: Callable[[Callable[[Store], Spent]], Spent] | None = None,
    leaving: threading.Event | None = None,
    left: Callable[[], BaseException] = InterruptedError,
) -> BudgetGuard:
    """The gate of an experiment for a process whose results go through `writer`.

    `refuse` makes the exception out of the reason; `read_store` asks the store as soon as it is there.
    """

    def spent() -> Spent:
        def read(where: Store) -> Spent:
            return where.usage.spent(experiment)

        return read(store) if read_store is None else read_store(read)

    def refused(so_far: Spent) -> BaseException:
        stop = budget.used_up_by(so_far, lambda: store.usage.unpriced_models(experiment))
        return refuse("" if stop is None else stop.message)

    return BudgetGuard(budget, spent, writer.flush, refused, leaving=leaving, left=left)


class BudgetGuard:
    """Lets calls of an experiment begin while its budget is not used up. A `doteval.runner.admission.AdmissionCheck`.

    `spent` asks the store what was spent; `flush` waits up to so many seconds until all results of this process
    are stored, and says whether they are. `refuse` makes the exception out of the spending at which the budget is
    used up. When `leaving` is set, the gate waits no longer and refuses with what `left` makes.
    """

    def __init__(
        self,
        budget: Budget,
        spent: Callable[[], Spent],
        flush: Callable[[float], bool],
        refuse: Callable[[Spent], BaseException],
        *,
        leaving: threading.Event | None = None,
        left: Callable[[], BaseException] = InterruptedError,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budget = budget
        self._spent = spent
        self._flush = flush
        self._refuse = refuse
        self._leaving = leaving or threading.Event()
        self._left = left
        self._clock = clock
        self._lock = threading.Lock()
        self._asked_at = -math.inf
        self._near = True
        self._sample: tuple[float, tuple[float, ...]] | None = None
        # The most that was spent between two samples, of each bound.
        self._most = [0.0] * len(budget.left(Spent()))
        self._telling = 0
        self._refusal: BaseException | None = None

    def admits_now(self) -> bool:
        """Whether a call may begin without asking the store. Never waits."""
        return self._refusal is None and not self._near and self._clock() - self._asked_at < _FRESH_SECONDS

    def refuses_now(self) -> bool:
        """Whether no call may begin any more. Never waits."""
        return self._refusal is not None

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may: the store is asked if need be."""
        try:
            return self._ask()
        except Exception as error:  # noqa: BLE001 - handed to whoever assigned the rows
            return error

    def _ask(self) -> BaseException | None:
        while self._refusal is None and not self.admits_now():
            near = self._near
            while near and not self._flush(_FLUSH_SECONDS):
                if self._leaving.is_set():
                    return self._left()
            oldest = self._clock() - (0.0 if near else _FRESH_SECONDS)
            with self._lock:
                # Many ask at once: what was asked for after our own question was put is an answer to it.
                if self._refusal is None and self._asked_at < oldest:
                    self._look()
            if near or not self._near:
                break
        return self._refusal

    def _look(self) -> None:
        now = self._clock()
        spent = self._spent()
        if self._budget.used_up_by(spent) is not None:
            self._refusal = self._refuse(spent)
            return
        left = self._budget.left(spent)
        if self._sample is None:
            self._sample = now, left
        elif now - self._sample[0] >= _FRESH_SECONDS:
            bursts = [before - after for before, after in zip(self._sample[1], left, strict=True)]
            self._telling += any(bursts)
            self._most = [max(pair) for pair in zip(self._most, bursts, strict=True)]
            self._sample = now, left
        # As long as nothing was spent nobody knows how fast that goes.
        margin = _MARGIN if self._telling >= _TELLING_SAMPLES else _MARGIN_AT_FIRST
        self._near = any(not most or rest <= margin * most for rest, most in zip(left, self._most, strict=True))
        self._asked_at = now

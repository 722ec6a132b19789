"""The budget guard: asks the result store whether an experiment has spent its budget.

Every call asks the guard before it begins. While much is left, the guard reads the store a few times a second. When
the rest may soon be spent, it reads for every call, after the completed rows of this process are stored. So no call
begins once the budget is used up. That rows in flight do not exceed it is the task of `budget_share`.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

from doteval.core import clocks
from doteval.core.budgets import Budget, BudgetStop, Spent
from doteval.core.experiments import Experiment
from doteval.store import GroupWriter, Store

# Seconds for which what was read from the store is valid while much is left.
_FRESH_SECONDS = 0.1
# Little is left if this many times the largest spend between two samples would use it up. The margin is larger until
# enough samples with a spend in between were seen, since a process spends slowly at first.
_MARGIN = 4
_MARGIN_SAMPLES = 10
_MARGIN_AT_FIRST = 100
# Seconds that the guard waits for rows to be stored, between two checks whether the process leaves.
_FLUSH_SECONDS = 0.5


def used_up(store: Store, experiment: Experiment, budget: Budget) -> BudgetStop | None:
    """Why an experiment may begin no further row within a budget, None if it may. One query, whatever its size."""
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
    """The budget guard of an experiment, for a process whose results go through `writer`.

    refuse: makes the exception from the reason
    read_store: reads from the store, waiting for it if it is unavailable
    leaving, left: see `BudgetGuard`
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

    spent: reads from the store what was spent
    flush: waits up to so many seconds until all results of this process are stored; returns whether they are
    refuse: makes the exception from the amounts at which the budget was used up
    leaving: once set, the guard waits no longer, and refuses with the exception that `left` makes
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
        clock: Callable[[], float] = clocks.monotonic,
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
        # For each limit of the budget, the most that was spent between two samples.
        self._most = [0.0] * len(budget.left(Spent()))
        self._samples = 0
        self._refusal: BaseException | None = None

    def admits_now(self) -> bool:
        """Whether a call may begin without reading the store. Never waits."""
        return self._refusal is None and not self._near and self._clock() - self._asked_at < _FRESH_SECONDS

    def refuses_now(self) -> bool:
        """Whether no further call may begin. Never waits."""
        return self._refusal is not None

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may. Reads the store if necessary."""
        try:
            return self._ask()
        except Exception as error:  # noqa: BLE001 - passed on to the code that assigned the rows
            return error

    def _ask(self) -> BaseException | None:
        while self._refusal is None and not self.admits_now():
            near = self._near
            while near and not self._flush(_FLUSH_SECONDS):
                if self._leaving.is_set():
                    return self._left()
            oldest = self._clock() - (0.0 if near else _FRESH_SECONDS)
            with self._lock:
                # Many threads ask at once: what another one read after our call began is good for us as well.
                if self._refusal is None and self._asked_at < oldest:
                    self._read()
            if near or not self._near:
                break
        return self._refusal

    def _read(self) -> None:
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
            self._samples += any(bursts)
            self._most = [max(pair) for pair in zip(self._most, bursts, strict=True)]
            self._sample = now, left
        # As long as nothing was spent, the pace is unknown.
        margin = _MARGIN if self._samples >= _MARGIN_SAMPLES else _MARGIN_AT_FIRST
        self._near = any(not most or rest <= margin * most for rest, most in zip(left, self._most, strict=True))
        self._asked_at = now

"""Keeps one budget guard for each experiment with a budget whose rows this process runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from doteval.coordination.budget_guard import BudgetGuard, budget_guard_for
from doteval.core.budgets import Budget
from doteval.core.experiments import Evaluation
from doteval.store import GroupWriter, Store
from doteval.worker.row_task_errors import EndedError, GiveBackError

_MOST_GUARDS = 100


class BudgetGuards:
    """The budget guards of this process. Evaluations of one experiment with the same budget share a guard.

    read_store: reads from the store, and retries while it is unavailable.
    leaving: set when the process leaves; a guard then waits no longer.
    """

    def __init__(
        self,
        store: Store,
        writer: GroupWriter,
        *,
        read_store: Callable[[Callable[[Store], Any]], Any],
        leaving: threading.Event,
    ) -> None:
        self._store = store
        self._writer = writer
        self._read_store = read_store
        self._leaving = leaving
        self._guards: dict[tuple[int, Budget], BudgetGuard] = {}

    def of(self, evaluation: Evaluation) -> BudgetGuard | None:
        """The guard that admits calls of an evaluation, None if its experiment has no budget."""
        experiment, budget = evaluation.experiment, evaluation.config.budget
        if not budget:
            return None
        known = self._guards.get((experiment.id, budget))
        if known is not None:
            return known
        if len(self._guards) >= _MOST_GUARDS:
            # A guard can be made again at any time.
            self._guards.clear()
        guard = budget_guard_for(
            self._store,
            experiment,
            budget,
            self._writer,
            EndedError,
            read_store=self._read_store,
            leaving=self._leaving,
            left=functools.partial(GiveBackError, "leaving"),
        )
        return self._guards.setdefault((experiment.id, budget), guard)

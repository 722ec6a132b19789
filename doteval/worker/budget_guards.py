"""Gates: what lets rows of experiments with a budget begin."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from doteval.coordination.budget_guard import BudgetGuard, budget_guard_for
from doteval.core.budgets import Budget
from doteval.core.experiments import Evaluation
from doteval.store import GroupWriter, Store
from doteval.worker.errors import EndedError, GiveBackError

# How many are kept.
_MOST_GATES = 100


class Gates:
    """The gates of this process. Evaluations of one experiment, with one budget, ask the same one."""

    def __init__(
        self,
        store: Store,
        writer: GroupWriter,
        *,
        patiently: Callable[[Callable[[Store], Any]], Any],
        leaving: threading.Event,
    ) -> None:
        self._store = store
        self._writer = writer
        self._patiently = patiently
        self._leaving = leaving
        self._gates: dict[tuple[int, Budget], BudgetGuard] = {}

    def of(self, evaluation: Evaluation) -> BudgetGuard | None:
        """What lets rows of an evaluation begin, None if it has no budget."""
        experiment, budget = evaluation.experiment, evaluation.config.budget
        if not budget:
            return None
        known = self._gates.get((experiment.id, budget))
        if known is not None:
            return known
        if len(self._gates) >= _MOST_GATES:
            # They can be made again at any time.
            self._gates.clear()
        gate = budget_guard_for(
            self._store,
            experiment,
            budget,
            self._writer,
            EndedError,
            read_store=self._patiently,
            leaving=self._leaving,
            left=functools.partial(GiveBackError, "leaving"),
        )
        return self._gates.setdefault((experiment.id, budget), gate)

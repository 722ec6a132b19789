"""Keeps the guard of budget and quota, and the budget share, of each experiment whose rows this process runs."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

from doteval.coordination.budget_guard import budget_guard_for
from doteval.coordination.budget_share import BudgetShare, StoredShares
from doteval.coordination.quota_guard import Quota, QuotaGuard
from doteval.core.budgets import Budget, BudgetStop
from doteval.core.experiments import Ending, Evaluation, EvaluationStatus
from doteval.store import GroupWriter, Store
from doteval.worker.row_task_errors import EndedError, GiveBackError

_MOST_GUARDS = 100


class BudgetGuards:
    """The guards and shares of this process. Evaluations of one experiment with the same budget have them in common.

    read_store: reads from the store, and retries while it is unavailable.
    leaving: set when the process leaves; a guard then waits no longer.
    worker_id: returns the id of this process in the store.
    """

    def __init__(
        self,
        store: Store,
        writer: GroupWriter,
        *,
        read_store: Callable[[Callable[[Store], Any]], Any],
        leaving: threading.Event,
        worker_id: Callable[[], int],
    ) -> None:
        self._store = store
        self._writer = writer
        self._read_store = read_store
        self._leaving = leaving
        self._worker_id = worker_id
        self._guards: dict[tuple[int, Budget], QuotaGuard] = {}
        self._shares: dict[tuple[int, Budget], BudgetShare] = {}

    def of(self, evaluation: Evaluation) -> QuotaGuard:
        """The guard that admits calls of an evaluation."""
        experiment, budget = evaluation.experiment, evaluation.config.budget
        known = self._guards.get((experiment.id, budget))
        if known is not None:
            return known
        if len(self._guards) >= _MOST_GUARDS:
            # A guard can be made again at any time.
            self._guards.clear()
        of_budget = budget_guard_for(
            self._store,
            experiment,
            budget,
            self._writer,
            EndedError,
            read_store=self._read_store,
            leaving=self._leaving,
            left=functools.partial(GiveBackError, "leaving"),
        )
        guard = QuotaGuard(Quota(), of_budget if budget else None, EndedError)
        return self._guards.setdefault((experiment.id, budget), guard)

    def permits_of(self, evaluation: Evaluation) -> BudgetShare | None:
        """The permits for rows of an evaluation, None without a budget."""
        experiment, budget = evaluation.experiment, evaluation.config.budget
        if not budget:
            return None
        known = self._shares.get((experiment.id, budget))
        if known is not None:
            return known
        if len(self._shares) >= _MOST_GUARDS:
            for key, each in list(self._shares.items()):
                if each.is_idle:
                    self._shares.pop(key, None)
        stored = StoredShares(self._store, experiment, self._worker_id)
        share = BudgetShare(budget, stored, lambda: self.of(evaluation).refusal())
        return self._shares.setdefault((experiment.id, budget), share)

    def end_without_quota(self, evaluation: Evaluation, guard: QuotaGuard, stop: BudgetStop) -> None:
        """End the running evaluations of an experiment whose account has no money left, but for complete ones.

        Raises StoreError.
        """
        if guard.quota.has_ended:
            # By another row task, and they may have been submitted again since.
            return
        for each in self._store.evaluations.running():
            if each.experiment.id == evaluation.experiment.id and (each.counts.pending or each.counts.total is None):
                self._store.evaluations.end(each.id, Ending.at_budget(stop), only_from=EvaluationStatus.RUNNING)
        guard.quota.has_ended = True

    def renew(self, evaluation: Evaluation, guard: QuotaGuard) -> QuotaGuard:
        """The guard of an evaluation that was submitted again after `guard` had ended it: there may be credit now."""
        key = (evaluation.experiment.id, evaluation.config.budget)
        if self._guards.get(key) is guard:
            del self._guards[key]
        return self.of(evaluation)

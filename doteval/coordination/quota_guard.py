"""The quota guard: once the account of a model API has no money left, an experiment begins no further row.

Each row would fail, whatever waits between its tries, so the experiment ends as it does when its budget is used up.
"""

from __future__ import annotations

from collections.abc import Callable

from doteval.core.budgets import BudgetStop
from doteval.core.results import ErrorClass, Outcome
from doteval.core.states import EvaluationEnd
from doteval.runner.admission import AdmissionCheck


class Quota:
    """What the rows of one experiment have learned about the account that pays for them. Safe to use from any thread.

    stop: why no further row may begin, None if one may.
    has_ended: whether the evaluations of the experiment have been ended for it in the store.

    >>> Quota().stop is None
    True
    """

    def __init__(self) -> None:
        self.stop: BudgetStop | None = None
        self.has_ended = False

    def note(self, outcome: Outcome) -> None:
        """Take in how a row has ended."""
        error = outcome.error
        if error is not None and error.error_class is ErrorClass.QUOTA:
            reason = f"the account of the model API has no money left: {error.type}: {error.message}"
            self.stop = BudgetStop(EvaluationEnd.QUOTA_USED_UP, reason)


class QuotaGuard:
    """Lets calls begin while the quota is not used up, and `budget` admits them. An `AdmissionCheck`.

    refuse: makes the exception from the reason.
    """

    def __init__(self, quota: Quota, budget: AdmissionCheck | None, refuse: Callable[[str], BaseException]) -> None:
        self.quota = quota
        self._budget = budget
        self._refuse = refuse

    def admits_now(self) -> bool:
        """Whether a call may begin without asking anybody. Never waits."""
        return self.quota.stop is None and (self._budget is None or self._budget.admits_now())

    def refuses_now(self) -> bool:
        """Whether it is already known that no further call may begin. Never waits."""
        return self.quota.stop is not None or (self._budget is not None and self._budget.refuses_now())

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may. Reads the store if the budget has to."""
        if self.quota.stop is not None:
            return self._refuse(self.quota.stop.message)
        return None if self._budget is None else self._budget.refusal()

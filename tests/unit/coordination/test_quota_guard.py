"""The quota guard refuses calls once a row has learned that the account has no money left."""

from __future__ import annotations

import pytest

from doteval.coordination.quota_guard import Quota, QuotaGuard
from doteval.core.results import ErrorClass, Outcome, RowError, RowStatus
from doteval.core.states import EvaluationEnd
from doteval.errors import BudgetError


class Budget:
    """A check of a budget whose answers are given."""

    def __init__(self, refusal: BaseException | None, *, fresh: bool) -> None:
        self._refusal = refusal
        self._fresh = fresh

    def admits_now(self) -> bool:
        return self._fresh and self._refusal is None

    def refuses_now(self) -> bool:
        return self._refusal is not None

    def refusal(self) -> BaseException | None:
        return self._refusal


def failed(error_class: ErrorClass) -> Outcome:
    return Outcome(RowStatus.FAILED, 0.0, 0.0, error=RowError("RateLimitError", "pay first", error_class))


@pytest.mark.parametrize("error_class", [each for each in ErrorClass if each is not ErrorClass.QUOTA])
def test_other_failures_change_nothing(error_class: ErrorClass) -> None:
    guard = QuotaGuard(Quota(), None, BudgetError)
    guard.quota.note(failed(error_class))
    guard.quota.note(Outcome(RowStatus.DONE, 0.0, 0.0))
    assert (guard.admits_now(), guard.refuses_now(), guard.refusal()) == (True, False, None)


@pytest.mark.parametrize("budget", [None, Budget(None, fresh=True)])
def test_an_account_without_money_refuses_every_call(budget: Budget | None) -> None:
    guard = QuotaGuard(Quota(), budget, BudgetError)
    guard.quota.note(failed(ErrorClass.QUOTA))
    assert (guard.admits_now(), guard.refuses_now()) == (False, True)
    assert "no money left: RateLimitError: pay first" in str(guard.refusal())
    assert guard.quota.stop is not None
    assert guard.quota.stop.cause is EvaluationEnd.QUOTA_USED_UP


def test_the_budget_decides_while_there_is_money() -> None:
    refusal = BudgetError("used up")
    refused = QuotaGuard(Quota(), Budget(refusal, fresh=True), BudgetError)
    assert (refused.admits_now(), refused.refuses_now(), refused.refusal()) == (False, True, refusal)
    unsure = QuotaGuard(Quota(), Budget(None, fresh=False), BudgetError)
    assert (unsure.admits_now(), unsure.refuses_now(), unsure.refusal()) == (False, False, None)

"""Budgets: when they are used up, and their messages."""

from __future__ import annotations

import pytest

from doteval.core.budgets import Budget, BudgetStop, Spent, budget_error
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd


@pytest.mark.parametrize(
    ("budget", "spent", "reason"),
    [
        (Budget(), Spent(10**9, 10**9, 10**9, 5), None),
        (Budget(requests=100), Spent(99, 10**6), None),
        (Budget(requests=100), Spent(100), "the budget is used up: 100 of 100 requests"),
        (Budget(tokens=1000), Spent(5, 1234), "the budget is used up: 1,234 of 1,000 tokens"),
        (Budget(100, 1000), Spent(100, 999), "the budget is used up: 100 of 100 requests"),
        (
            Budget(100, 1000, 2.0),
            Spent(101, 1000, 1.99),
            "the budget is used up: 101 of 100 requests, 1,000 of 1,000 tokens",
        ),
        (Budget(cost=0.01), Spent(5, 5, 0.0099), None),
        (Budget(cost=0.01), Spent(5, 5, 0.0125), "the budget is used up: $0.0125 of $0.0100"),
        (Budget(cost=1.0), Spent(5, 5, 0.0, 3), "the budget of $1.00 cannot be kept: no price is known for a, b"),
        (Budget(tokens=9), Spent(5, 5, 0.0, 3), None),
    ],
)
def test_when_a_budget_is_used_up(budget: Budget, spent: Spent, reason: str | None) -> None:
    stop = budget.used_up_by(spent, lambda: ["a", "b"])
    assert (None if stop is None else stop.message) == reason


def test_a_budget_survives_the_run_configuration() -> None:
    for budget in (Budget(), Budget(1), Budget(None, 2), Budget(1, 2, 0.5)):
        assert RunConfig.from_json(RunConfig().with_budget(budget).to_json()).budget == budget
    assert not Budget()
    assert Budget(cost=0.1)


def test_spending_is_compared_with_every_limit() -> None:
    assert Budget(100, None, 2.5).compare(Spent(7, 10, 1.25)) == "7 of 100 requests, $1.25 of $2.50"


def test_the_remedy_fits_the_reason() -> None:
    used_up = budget_error(
        "x", BudgetStop(EvaluationEnd.BUDGET_USED_UP, "the budget is used up: 1 of 1 requests"), pending=1
    )
    assert used_up.message == "experiment 'x': the budget is used up: 1 of 1 requests; 1 row is pending"
    assert "larger budget" in str(used_up.remedy)
    stop = BudgetStop(EvaluationEnd.BUDGET_UNPRICED, "the budget of $1.00 cannot be kept: no price is known for m")
    unpriced = budget_error("x", stop, pending=0)
    assert unpriced.message.endswith("known for m")
    assert "price" in str(unpriced.remedy)

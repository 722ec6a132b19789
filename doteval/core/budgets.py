"""What an experiment may spend, and what it has spent: requests, tokens, US dollars.

Everything counts, also work that was done twice, as ``spent`` of `doteval usage` does. A budget belongs to
the experiment as a whole; it is stored in the run configuration of each evaluation, as the last command gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from doteval.core.states import EvaluationEnd
from doteval.errors import BudgetError, UsageError


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent.

    `requests` are those that went out to a server, each try counted; `tokens` those of prompts and completions;
    `cost` is in US dollars, of the models that have a price; `unpriced` are the tokens of those that have none.
    """

    requests: int = 0
    tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.cost + other.cost,
            self.unpriced + other.unpriced,
        )


@dataclass(frozen=True, slots=True)
class BudgetStop:
    """Why an experiment may begin no further row: the cause, and a message for people."""

    cause: EvaluationEnd
    message: str


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be spent before no further row is begun; None means any amount."""

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __bool__(self) -> bool:
        return self != Budget()

    def left(self, spent: Spent) -> tuple[float, ...]:
        """What is left of each bound that there is."""
        return tuple(left for left, _ in self._bounds(spent))

    def used_up_by(self, spent: Spent, unpriced_models: Callable[[], Sequence[str]] = list) -> BudgetStop | None:
        """Why no further row may begin, None if one may.

        A budget in dollars cannot be kept once tokens without a price were spent, and so counts as used up;
        `unpriced_models` names whose they are, and is asked only then.
        """
        if self.cost is not None and spent.unpriced:
            whose = f" for {', '.join(unpriced_models()) or 'a model'}"
            message = f"the budget of {_money(self.cost)} cannot be kept: no price is known{whose}"
            return BudgetStop(EvaluationEnd.BUDGET_UNPRICED, message)
        used_up = [text for left, text in self._bounds(spent) if left <= 0]
        if not used_up:
            return None
        return BudgetStop(EvaluationEnd.BUDGET_USED_UP, f"the budget is used up: {', '.join(used_up)}")

    def compare(self, spent: Spent) -> str:
        """What is spent of each bound that there is: ``103 of 100 requests, $0.2000 of $1.00``."""
        return ", ".join(text for _, text in self._bounds(spent))

    def _bounds(self, spent: Spent) -> Iterator[tuple[float, str]]:
        if self.requests is not None:
            yield self.requests - spent.requests, f"{spent.requests:,} of {self.requests:,} requests"
        if self.tokens is not None:
            yield self.tokens - spent.tokens, f"{spent.tokens:,} of {self.tokens:,} tokens"
        if self.cost is not None:
            yield self.cost - spent.cost, f"{_money(spent.cost)} of {_money(self.cost)}"


def budget_error(experiment: str, stop: BudgetStop, *, pending: int) -> BudgetError:
    """The error for the user of an experiment that `stop` has ended with `pending` rows left."""
    rows = f"; {pending:,} {'row is' if pending == 1 else 'rows are'} pending" if pending else ""
    return BudgetError(
        f"experiment {experiment!r}: {stop.message}{rows}",
        remedy="To go on, submit it again with a larger budget, or without one."
        if stop.cause is not EvaluationEnd.BUDGET_UNPRICED
        else "Put the prices into the table that `prices` in [tool.doteval] names, and begin another experiment; or go "
        "on with --max-tokens instead of --max-cost.",
    )


def check_prices(budget: Budget, prices: str | None) -> None:
    """Raise UsageError for a budget in dollars where no price table is named."""
    if budget.cost is not None and prices is None:
        raise UsageError(
            "--max-cost needs to know what tokens cost, and no price table is named",
            remedy="Name one as `prices` in [tool.doteval] or DOTEVAL_PRICES, or use --max-tokens or --max-requests.",
        )


def _money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"

"""Limits what an experiment may spend: requests, tokens and US dollars.

All usage counts, also that of work that was done twice, as ``spent`` of `doteval usage` does. A budget belongs to
the experiment as a whole; it is stored in the run configuration of each evaluation, as the last command gave it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from doteval.core.states import EvaluationEnd
from doteval.core.wording import counted
from doteval.errors import BudgetError

# Rows that begin in all processes before the first one has shown what a row costs.
_FIRST_ROWS = 8


@dataclass(frozen=True, slots=True)
class Spent:
    """What an experiment has spent.

    requests: requests sent to a server; each try counts.
    tokens: tokens of prompts and completions.
    cost: US dollars, for the models that have a price.
    unpriced: tokens of the models that have no price.
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
    """What an experiment may spend before it begins no further row; None means any amount.

    >>> Budget(requests=100).used_up_by(Spent(requests=100)).message
    'the budget is used up: 100 of 100 requests'
    """

    requests: int | None = None
    tokens: int | None = None
    cost: float | None = None

    def __bool__(self) -> bool:
        return self != Budget()

    def left(self, spent: Spent) -> tuple[float, ...]:
        """The rest of each limit that is set."""
        return tuple(left for left, _ in self._limits(spent))

    def rows_left(self, spent: Spent, rows: int) -> int | None:
        """How many more rows fit, at the mean of the rows so far; None for any number.

        While no row has ended, nothing is known, and a few rows fit.

        >>> Budget(cost=1.0).rows_left(Spent(cost=0.25), rows=10)
        30
        """
        if not rows:
            return _FIRST_ROWS if self.requests is None else min(_FIRST_ROWS, self.requests - spent.requests)
        limits = ((self.requests, spent.requests), (self.tokens, spent.tokens), (self.cost, spent.cost))
        # The sum of many costs is not exact.
        fits = [int((most - used) * rows / used + 1e-6) for most, used in limits if most is not None and used]
        return max(0, min(fits)) if fits else None

    def used_up_by(self, spent: Spent, unpriced_models: Callable[[], Sequence[str]] = list) -> BudgetStop | None:
        """Why no further row may begin, None if one may.

        A budget in dollars cannot be kept once tokens without a price were spent, so it counts as used up then.
        `unpriced_models` is called only in that case; it names the models of these tokens.
        """
        if self.cost is not None and spent.unpriced:
            return self.unpriced(unpriced_models())
        used_up = [text for left, text in self._limits(spent) if left <= 0]
        if not used_up:
            return None
        return BudgetStop(EvaluationEnd.BUDGET_USED_UP, f"the budget is used up: {', '.join(used_up)}")

    def unpriced(self, models: Sequence[str]) -> BudgetStop:
        """Why no further row may begin that asks models without a price, with a budget in dollars.

        >>> Budget(cost=5.0).unpriced(["m"]).message
        'the budget of $5.00 cannot be kept: no price is known for m'
        """
        assert self.cost is not None
        message = f"the budget of {_money(self.cost)} cannot be kept: no price is known for "
        return BudgetStop(EvaluationEnd.BUDGET_UNPRICED, message + (", ".join(models) or "a model"))

    def compare(self, spent: Spent) -> str:
        """The spent part of each limit that is set: ``103 of 100 requests, $0.2000 of $1.00``."""
        return ", ".join(text for _, text in self._limits(spent))

    def _limits(self, spent: Spent) -> Iterator[tuple[float, str]]:
        if self.requests is not None:
            yield self.requests - spent.requests, f"{spent.requests:,} of {counted(self.requests, 'request')}"
        if self.tokens is not None:
            yield self.tokens - spent.tokens, f"{spent.tokens:,} of {counted(self.tokens, 'token')}"
        if self.cost is not None:
            yield self.cost - spent.cost, f"{_money(spent.cost)} of {_money(self.cost)}"


_REMEDIES = {
    EvaluationEnd.BUDGET_USED_UP: "To go on, submit it again with a larger budget, or without one.",
    EvaluationEnd.BUDGET_UNPRICED: "Put the prices into a table, name it as `prices` in [tool.doteval] or "
    "DOTEVAL_PRICES, and submit it again. If it has used tokens of the model already, their cost stays unknown: "
    "go on with --max-tokens instead of --max-cost, or begin another experiment.",
    EvaluationEnd.QUOTA_USED_UP: "To go on, add credit to the account, or use another key, and submit it again.",
}


def budget_error(experiment: str, stop: BudgetStop, *, pending: int) -> BudgetError:
    """The error that tells the user that `stop` has ended an experiment with `pending` rows left."""
    rows = f"; {counted(pending, 'row is', 'rows are')} pending" if pending else ""
    return BudgetError(
        f"experiment {experiment!r}: {stop.message}{rows}",
        remedy=_REMEDIES[stop.cause],
        page="troubleshooting#budget-used-up",
    )


def _money(dollars: float) -> str:
    return f"${dollars:,.2f}" if dollars >= 1 else f"${dollars:.4f}"

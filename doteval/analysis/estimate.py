"""Estimates what the rest of an experiment will use, from a random sample of its rows that have run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from doteval.core.budgets import Budget, Spent
from doteval.metrics.intervals import Interval


class Amount(StrEnum):
    """A kind of usage that is estimated."""

    REQUESTS = "requests"
    """With their retries."""
    PROMPT_TOKENS = "prompt_tokens"
    COMPLETION_TOKENS = "completion_tokens"
    COST = "cost"
    BATCH_COST = "batch_cost"
    """The cost of the same tokens in batches."""
    SECONDS = "seconds"
    """How long its rows take where as many run at once as may."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What the rows of a sample of one evaluation have used.

    used: for each amount, a number for each unit that was drawn: a row, or a batch of the rows of a @batch evaluation.
    units_left: the units that were not drawn.
    rows, rows_left: the rows of the units that were drawn, and the others; samples count.
    failed: rows of the sample that failed.
    at_once: rows that the worker processes run at the same time, 0 if there are none.
    unpriced: the models without a price, whose tokens have no cost.
    """

    used: Mapping[Amount, Sequence[float]]
    units_left: int
    rows: int
    rows_left: int
    failed: int = 0
    at_once: int = 0
    unpriced: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Projection:
    """One amount: what the sample has used, and what the other rows are going to use.

    interval: the 95% interval of `rest`, None where the sample does not tell, as where all of its rows used the same.
    """

    sampled: float
    rest: float
    interval: Interval | None


@dataclass(frozen=True, slots=True)
class UsageEstimate:
    """What is known of the rest of an experiment once a sample of its rows has run.

    amounts: without the costs if no model has a price, and without that in batches if the rows ran in batches.
    at_once: rows that run at the same time.
    unpriced: the models without a price.
    exceeds_budget: whether the budget is likely to be used up before the last row has run.
    """

    rows: int
    rows_left: int
    failed: int
    at_once: int
    amounts: Mapping[Amount, Projection]
    unpriced: tuple[str, ...] = ()
    exceeds_budget: bool = False


def estimate(samples: Sequence[Sample], *, budget: Budget | None = None, spent: Spent | None = None) -> UsageEstimate:
    """The estimate for evaluations that run side by side.

    budget, spent: what the experiment may spend, and has spent with the sample.

    >>> found = estimate([Sample({Amount.REQUESTS: [1.0, 2.0]}, units_left=8, rows=2, rows_left=8)])
    >>> found.amounts[Amount.REQUESTS].rest
    12.0
    """
    amounts = {}
    for amount in Amount:
        parts = [(each.used[amount], each.units_left) for each in samples if amount in each.used]
        if parts:
            amounts[amount] = _sum([_projection(used, left) for used, left in parts])
    unpriced = tuple(sorted(frozenset[str]().union(*(each.unpriced for each in samples))))
    found = UsageEstimate(
        rows=sum(each.rows for each in samples),
        rows_left=sum(each.rows_left for each in samples),
        failed=sum(each.failed for each in samples),
        at_once=max((each.at_once for each in samples), default=0),
        amounts=amounts,
        unpriced=unpriced,
    )
    if not budget:
        return found
    before = spent or Spent()
    after = Spent(
        before.requests + round(_rest(found, Amount.REQUESTS)),
        before.tokens + round(_rest(found, Amount.PROMPT_TOKENS) + _rest(found, Amount.COMPLETION_TOKENS)),
        before.cost + _rest(found, Amount.COST),
    )
    return replace(found, exceeds_budget=budget.used_up_by(after) is not None)


def _rest(found: UsageEstimate, amount: Amount) -> float:
    return found.amounts[amount].rest if amount in found.amounts else 0.0


def _projection(used: Sequence[float], left: int) -> Projection:
    if not used:
        return Projection(0.0, 0.0, None)
    from doteval.metrics.rest_interval import rest_interval

    total = math.fsum(used)
    return Projection(total, total / len(used) * left, rest_interval(used, left))


def _sum(parts: Sequence[Projection]) -> Projection:
    """The sum of independent projections.

    Its interval reaches as far as the root of the summed squares of what theirs reach, on each side: the method of
    G. Y. Zou and A. Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27, 2008.
    """
    rest = math.fsum(each.rest for each in parts)
    known = [(each.rest, each.interval) for each in parts if each.interval is not None]
    interval = None
    if known:
        below = math.hypot(*(middle - found.low for middle, found in known))
        above = math.hypot(*(found.high - middle for middle, found in known))
        interval = Interval(max(0.0, rest - below), rest + above, known[0][1].method)
    return Projection(math.fsum(each.sampled for each in parts), rest, interval)

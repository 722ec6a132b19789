"""The estimate of what the rest of an experiment uses, and whether its interval holds what is used in the end."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pytest

from doteval.analysis.estimate import Amount, Sample, estimate
from doteval.core.budgets import Budget, Spent
from doteval.metrics.rest_interval import rest_interval
from doteval.metrics.studentized import Numbers

Draw = Callable[[numpy.random.Generator, int], Numbers]

# Costs of rows: tokens of the prompt, that are much alike, and of the completion, with a long tail.
COSTS: dict[str, Draw] = {
    "lognormal": lambda random, count: random.lognormal(0.0, 1.0, count),
    "prompt and completion": lambda random, count: 500 + 300 * random.lognormal(0.0, 1.0, count),
    "gamma": lambda random, count: random.gamma(0.5, 1.0, count),
}
EXPERIMENTS = 500


@pytest.mark.parametrize("costs", COSTS)
def test_the_interval_holds_the_cost_of_the_rest_in_about_95_of_100_experiments(costs: str) -> None:
    random = numpy.random.default_rng(1)
    held = below = 0
    for _ in range(EXPERIMENTS):
        drawn = COSTS[costs](random, 1000)
        found = rest_interval(list(drawn[:50]), 950)
        assert found is not None
        rest = float(drawn[50:].sum())
        held += found.low <= rest <= found.high
        below += found.high < rest
    # Of 500 experiments, 95% are 475, with a standard deviation of 5.
    assert 0.925 <= held / EXPERIMENTS <= 0.975
    # The tail is on the side where an estimate is too low, and is not forgotten there.
    assert below / EXPERIMENTS <= 0.07


def test_the_interval_is_narrow_where_few_values_are_left() -> None:
    values = [1.0, 2.0, 3.0, 4.0] * 10
    few, many = rest_interval(values, 4), rest_interval(values, 4000)
    assert few is not None
    assert many is not None
    assert (few.high - few.low) / 4 > (many.high - many.low) / 4000
    assert few.high < 40
    assert rest_interval(values, 0) is None
    assert rest_interval([2.0] * 9, 10) is None
    assert rest_interval([2.0], 10) is None


def test_evaluations_add_up() -> None:
    costs = [float(number) for number in range(1, 10)]
    one = Sample({Amount.COST: costs}, units_left=30, rows=9, rows_left=30, failed=1, at_once=4)
    # All rows of the other evaluation cost the same: its rest is known, as far as the sample says.
    two = Sample({Amount.COST: [5.0, 5.0], Amount.REQUESTS: [1.0, 1.0]}, units_left=8, rows=2, rows_left=8, at_once=2)
    found = estimate([one, two])
    cost, alone = found.amounts[Amount.COST], estimate([one]).amounts[Amount.COST]
    assert (cost.sampled, cost.rest) == (55.0, 190.0)
    assert cost.interval is not None
    assert alone.interval is not None
    assert cost.interval.high == pytest.approx(alone.interval.high + 40)
    assert (found.rows, found.rows_left, found.failed, found.at_once) == (11, 38, 1, 4)
    assert found.amounts[Amount.REQUESTS].rest == 8.0
    twice = estimate([one, one]).amounts[Amount.COST]
    assert twice.interval is not None
    # Two independent errors partly cancel each other.
    assert twice.interval.high - twice.rest == pytest.approx(2**0.5 * (alone.interval.high - alone.rest))


def test_models_without_a_price_and_budgets() -> None:
    sample = Sample({Amount.PROMPT_TOKENS: [10.0, 30.0]}, 8, 2, 8, unpriced=frozenset({"m"}))
    found = estimate([sample], budget=Budget(tokens=150), spent=Spent(tokens=40))
    assert found.unpriced == ("m",)
    assert Amount.COST not in found.amounts
    assert found.exceeds_budget
    assert not estimate([sample], budget=Budget(tokens=1000), spent=Spent(tokens=40)).exceeds_budget
    assert not estimate([]).amounts

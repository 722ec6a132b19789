"""Budgets: when they are used up, what is said of it, and how seldom the store is asked."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from doteval.coordination.budget_guard import BudgetGuard
from doteval.core.budgets import Budget, BudgetStop, Spent, budget_error, check_prices
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.errors import UsageError


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


def test_what_is_spent_is_compared_with_every_bound() -> None:
    assert Budget(100, None, 2.5).compare(Spent(7, 10, 1.25)) == "7 of 100 requests, $1.25 of $2.50"


def test_dollars_need_prices() -> None:
    check_prices(Budget(1, 1), None)
    check_prices(Budget(cost=1.0), "prices.toml")
    with pytest.raises(UsageError, match="--max-cost needs to know"):
        check_prices(Budget(cost=1.0), None)


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


class StoppedError(Exception):
    """What the gates here refuse with."""


class World:
    """Processes that spend: what each has spent counts for all when it is stored."""

    def __init__(self, budget: Budget, processes: int = 2) -> None:
        self.now = 0.0
        self.stored = 0
        self.asked = 0
        self.unstored = [0] * processes
        self.gates = [
            BudgetGuard(
                budget, self.spent, self.flush(number), lambda spent: StoppedError(spent), clock=lambda: self.now
            )
            for number in range(processes)
        ]

    def spent(self) -> Spent:
        self.asked += 1
        return Spent(self.stored)

    def flush(self, process: int) -> Callable[[float], bool]:
        def store(_: float) -> bool:
            self.stored += self.unstored[process]
            self.unstored[process] = 0
            return True

        return store


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("most", [1, 5, 100, 5000])
def test_beyond_the_budget_is_only_what_was_in_flight(seed: int, most: int) -> None:
    """Rows of any length, on processes of which one may be idle while the other spends everything."""
    chance = random.Random(seed)
    world = World(Budget(requests=most))
    slots = chance.choice([1, 10])
    in_flight: list[tuple[float, int]] = []
    begun = 0
    busy = [True, chance.random() < 0.5]
    stopped: set[int] = set()
    while len(stopped) < 2:
        if chance.random() < 0.01:
            busy[1] = not busy[1]
        for process in (0, 1):
            room = slots - sum(of == process for _, of in in_flight)
            for _ in range(room if busy[process] or not in_flight else 0):
                gate = world.gates[process]
                if not gate.admits_now() and gate.refusal() is not None:
                    stopped.add(process)
                    break
                begun += 1
                in_flight.append((world.now + chance.expovariate(20), process))
        if in_flight:
            in_flight.sort()
            world.now, process = in_flight.pop(0)
            world.unstored[process] += 1
            # The writer takes its time now and then.
            if chance.random() < 0.8:
                world.flush(process)(0.0)
        else:
            busy = [True, True]
    assert most <= begun < most + 2 * slots


def test_while_much_is_left_the_store_is_asked_a_few_times_a_second() -> None:
    world = World(Budget(requests=10**9), processes=1)
    (gate,) = world.gates
    for row in range(10_000):
        assert gate.admits_now() or gate.refusal() is None
        world.stored += 1
        world.now = row / 1000
    # Ten seconds of a thousand rows each; at first nobody knows how fast they are.
    assert world.asked <= 100 + 10 * 10


def test_a_gate_that_has_refused_does_not_ask_again() -> None:
    world = World(Budget(requests=3), processes=1)
    (gate,) = world.gates
    world.stored = 3
    refusal = gate.refusal()
    assert isinstance(refusal, StoppedError)
    asked = world.asked
    assert not gate.admits_now()
    assert gate.refusal() is refusal
    assert world.asked == asked


def test_what_cannot_be_asked_is_a_refusal() -> None:
    trouble = OSError("the store is away")

    def spent() -> Spent:
        raise trouble

    assert BudgetGuard(Budget(1), spent, lambda _: True, lambda _: StoppedError()).refusal() is trouble


def test_leaving_ends_the_waiting_for_rows_to_be_stored() -> None:
    leaving = threading.Event()
    waits: list[float] = []

    def flush(seconds: float) -> bool:
        waits.append(seconds)
        leaving.set()
        return False

    gate = BudgetGuard(
        Budget(1),
        Spent,
        flush,
        lambda _: AssertionError("not used up"),
        leaving=leaving,
        left=lambda: StoppedError("left"),
    )
    assert isinstance(gate.refusal(), StoppedError)
    assert len(waits) == 1


def test_an_answer_to_one_is_an_answer_to_all_who_asked_before() -> None:
    clock_read, answering = threading.Semaphore(0), threading.Event()
    asked = []

    def spent() -> Spent:
        asked.append(1)
        assert answering.wait(30)
        return Spent()

    def clock() -> float:
        try:
            return time.monotonic()
        finally:
            clock_read.release()

    gate = BudgetGuard(Budget(5), spent, lambda _: True, lambda _: StoppedError(), clock=clock)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(gate.refusal) for _ in range(8)]
        # By each to note when it asked, and by the first when it puts the question to the store.
        for _ in range(9):
            assert clock_read.acquire(timeout=30)
        answering.set()
        assert [answer.result(30) for answer in answers] == [None] * 8
    # The first answer is not good for those who asked while it was given; the second is, for all of them.
    assert len(asked) <= 2

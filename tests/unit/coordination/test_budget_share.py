"""Rows get permits to begin for what is left of a budget, beside the rows in flight of all processes."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

import pytest

from doteval.coordination.budget_share import BudgetShare
from doteval.core.budgets import Budget, Spent
from doteval.errors import StoreError
from doteval.store import BudgetState
from tests.support.project import wait_until


class Experiment:
    """An experiment in a store: what it has spent on how many rows, and what processes have reserved."""

    def __init__(self, cost: float = 0.0, rows: int = 0) -> None:
        self.cost, self.rows = cost, rows
        self.reserved: dict[str, int] = {}
        self.writes = 0
        self.is_away = False


class Process:
    """One process with a share, without its thread. Its guard refuses all rows once it is asked."""

    def __init__(self, experiment: Experiment, budget: float, name: str = "mine") -> None:
        self.experiment = experiment
        self.name = name
        self.asked = 0
        self.share = BudgetShare(Budget(cost=budget), self, self.ask)
        # The test looks at the store itself.
        self.share._thread = threading.current_thread()

    @property
    def in_flight(self) -> int:
        return self.share.unended.rows

    def ask(self) -> None:
        self.asked += 1

    def look(self) -> BudgetState:
        if self.experiment.is_away:
            raise StoreError("away")
        others = sum(rows for name, rows in self.experiment.reserved.items() if name != self.name)
        return BudgetState(Spent(cost=self.experiment.cost), self.experiment.rows, others)

    def reserve(self, rows: Callable[[BudgetState], int]) -> tuple[BudgetState, int]:
        state = self.look()
        self.experiment.writes += 1
        self.experiment.reserved[self.name] = rows(state)
        return state, self.experiment.reserved[self.name]

    def begin(self, window: int, rows: int = 1) -> None:
        """Begin rows until the window is full or there is no permit."""
        for _ in range(20):
            while not self.asked and self.in_flight < window and self.share.take(rows, lambda: None):
                self.share.unended.add(rows)
            if self.in_flight < window:
                self.share.renew()

    def end(self, rows: int, cost: float) -> None:
        self.share.unended.add(-rows)
        self.experiment.rows += rows
        self.experiment.cost += cost


def test_a_few_rows_begin_until_one_has_shown_what_a_row_costs() -> None:
    experiment = Experiment()
    one, two = (Process(experiment, 1.0, name) for name in ("one", "two"))
    one.begin(window=100)
    two.begin(window=100)
    assert (one.in_flight, two.in_flight) == (8, 0)
    one.end(1, 0.01)
    two.begin(window=100)
    # 99 rows fit, of which 7 are in flight.
    one.begin(window=100)
    assert one.in_flight + two.in_flight <= 99
    assert two.in_flight >= 90


def test_in_any_order_the_rows_of_all_processes_stay_within_the_budget() -> None:
    for seed in range(20):
        chance = random.Random(seed)
        experiment = Experiment()
        processes = [Process(experiment, 1.0, str(number)) for number in range(3)]
        while not all(each.asked for each in processes):
            process = chance.choice(processes)
            process.begin(window=32)
            if process.in_flight and chance.random() < 0.7:
                ended = chance.randint(1, process.in_flight)
                process.end(ended, ended * 0.01)
            process.share.renew()
        assert experiment.cost == pytest.approx(1.0)


def test_a_row_that_is_dearer_than_what_is_left_runs_alone() -> None:
    experiment = Experiment(cost=0.95, rows=5)
    one, two = (Process(experiment, 1.0, name) for name in ("one", "two"))
    one.begin(window=10)
    two.begin(window=10)
    assert (one.in_flight, two.in_flight) == (1, 0)
    one.end(1, 0.19)
    one.share.renew()
    two.begin(window=1)
    assert one.asked
    assert two.asked


def test_a_batch_that_does_not_fit_runs_alone() -> None:
    process = Process(Experiment(cost=0.9, rows=90), 1.0)
    process.begin(window=1, rows=32)
    assert process.in_flight == 32


def test_while_much_is_left_a_process_writes_seldom() -> None:
    experiment = Experiment(cost=1.0, rows=1000)
    process = Process(experiment, 1000.0)
    for _ in range(100):
        process.begin(window=32)
        process.end(16, 0.016)
    assert experiment.writes <= 5
    process.share.unended.add(-process.in_flight)
    process.share.renew()
    process.share.renew()
    assert experiment.reserved == {"mine": 0}


def test_rows_that_cost_nothing_begin_without_an_end() -> None:
    process = Process(Experiment(cost=0.0, rows=10), 0.01)
    process.begin(window=500)
    assert process.in_flight == 500


def test_a_row_that_waits_is_woken_and_what_is_reserved_is_given_back() -> None:
    experiment = Experiment(cost=0.1, rows=10)
    process = Process(experiment, 1.0)
    process.share._thread = None
    woken = threading.Event()
    assert not process.share.take(1, woken.set)
    assert woken.wait(30)
    # Permits that nobody takes last for a moment.
    wait_until(lambda: process.share.take(1, woken.set), what="a permit")
    process.share.unended.add(1)
    wait_until(lambda: experiment.reserved.get("mine"), what="a reservation")
    process.share.unended.add(-1)
    wait_until(lambda: process.share.is_idle, what="the end of the thread")
    assert experiment.reserved == {"mine": 0}
    wait_until(lambda: process.share.take(1, woken.set), what="a permit")
    process.share.close()
    assert experiment.reserved == {"mine": 0}


def test_without_the_store_the_guard_decides() -> None:
    experiment = Experiment(cost=0.1, rows=10)
    experiment.is_away = True
    process = Process(experiment, 1.0)
    process.share._thread = None
    woken = threading.Event()
    assert not process.share.take(1, woken.set)
    assert woken.wait(30)
    assert process.asked
    experiment.is_away = False
    wait_until(lambda: process.share.take(1, woken.set), what="a permit")
    process.share.close()

"""The budget guard: rows beyond the budget do not begin, and the store is queried seldom."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from doteval.coordination.budget_guard import BudgetGuard
from doteval.core.budgets import Budget, Spent


class StoppedError(Exception):
    """The refusal of the guards in these tests."""


class World:
    """Processes that spend. The others see the spending of a process once it is stored."""

    def __init__(self, budget: Budget, processes: int = 2) -> None:
        self.now = 0.0
        self.stored = 0
        self.asked = 0
        self.unstored = [0] * processes
        self.guards = [
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
def test_only_rows_in_flight_exceed_the_budget(seed: int, most: int) -> None:
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
                guard = world.guards[process]
                if not guard.admits_now() and guard.refusal() is not None:
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


def test_far_from_the_limit_the_store_is_queried_a_few_times_a_second() -> None:
    world = World(Budget(requests=10**9), processes=1)
    (guard,) = world.guards
    for row in range(10_000):
        assert guard.admits_now() or guard.refusal() is None
        world.stored += 1
        world.now = row / 1000
    # Ten seconds of a thousand rows each; at first nobody knows how fast they are.
    assert world.asked <= 100 + 10 * 10


def test_a_gate_that_has_refused_does_not_ask_again() -> None:
    world = World(Budget(requests=3), processes=1)
    (guard,) = world.guards
    world.stored = 3
    refusal = guard.refusal()
    assert isinstance(refusal, StoppedError)
    asked = world.asked
    assert not guard.admits_now()
    assert guard.refusal() is refusal
    assert world.asked == asked


def test_a_store_that_cannot_be_queried_is_a_refusal() -> None:
    trouble = OSError("the store is away")

    def spent() -> Spent:
        raise trouble

    assert BudgetGuard(Budget(1), spent, lambda _: True, lambda _: StoppedError()).refusal() is trouble


def test_leaving_ends_the_wait_for_rows_to_be_stored() -> None:
    leaving = threading.Event()
    waits: list[float] = []

    def flush(seconds: float) -> bool:
        waits.append(seconds)
        leaving.set()
        return False

    guard = BudgetGuard(
        Budget(1),
        Spent,
        flush,
        lambda _: AssertionError("not used up"),
        leaving=leaving,
        left=lambda: StoppedError("left"),
    )
    assert isinstance(guard.refusal(), StoppedError)
    assert len(waits) == 1


def test_one_answer_serves_all_callers_that_asked_before_it() -> None:
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

    guard = BudgetGuard(Budget(5), spent, lambda _: True, lambda _: StoppedError(), clock=clock)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(guard.refusal) for _ in range(8)]
        # By each to note when it asked, and by the first when it puts the question to the store.
        for _ in range(9):
            assert clock_read.acquire(timeout=30)
        answering.set()
        assert [answer.result(30) for answer in answers] == [None] * 8
    # The first answer is not good for those who asked while it was given; the second is, for all of them.
    assert len(asked) <= 2

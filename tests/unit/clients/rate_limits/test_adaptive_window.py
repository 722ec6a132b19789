"""How many requests are in flight, against simulated servers with a simulated clock."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from doteval.clients.rate_limits.adaptive_window import AdaptiveWindow


class Simulation:
    """Requests that take `latency` on a server that works on `capacity` of them at once, the others waiting."""

    def __init__(self, capacity: int, *, wanted: int = 10_000, rejects_above: int | None = None) -> None:
        self.now = 0.0
        self.window = AdaptiveWindow(clock=lambda: self.now)
        self.done = 0
        self._free = [0.0] * capacity
        self._rejects_above = rejects_above
        self._wanted = wanted
        self._flying: list[tuple[float, int, int, bool, bool]] = []
        self._numbers = itertools.count()
        self._random = random.Random(1)
        self.failing = 0.0

    def run(self, seconds: float) -> float:
        """Replies a second."""
        until, before = self.now + seconds, self.done
        while self.now < until:
            while self.window.in_flight < min(self.window.limit, self._wanted):
                self._send()
            self.now, _, era, failed, overloaded = heapq.heappop(self._flying)
            self.done += not failed and not overloaded
            self.window.ended(era, failed=failed, overloaded=overloaded)
        return (self.done - before) / seconds

    def _send(self) -> None:
        era = self.window.begun()
        overloaded = self._rejects_above is not None and self.window.in_flight > self._rejects_above
        failed = self._random.random() < self.failing
        begin = max(self.now, heapq.heappop(self._free))
        end = begin + self._random.lognormvariate(-1.0, 0.5)
        heapq.heappush(self._free, begin if overloaded else end)
        end = self.now + 0.01 if overloaded else end
        heapq.heappush(self._flying, (end, next(self._numbers), era, failed, overloaded))


@pytest.mark.parametrize("capacity", [64, 256, 1000])
def test_it_grows_while_that_helps_and_stops_then(capacity: int) -> None:
    simulation = Simulation(capacity)
    simulation.run(30)
    # A third of a second each, in the mean 0.417 s.
    assert simulation.run(30) >= 0.9 * capacity / 0.417
    assert simulation.window.limit <= 4 * capacity


def test_what_nobody_wants_is_not_offered() -> None:
    simulation = Simulation(1000, wanted=20)
    first = simulation.window.limit
    simulation.run(60)
    assert simulation.window.limit == first


def test_a_server_that_rejects_is_spared() -> None:
    simulation = Simulation(1000, rejects_above=50)
    simulation.run(30)
    before = simulation.done
    simulation.run(30)
    assert (simulation.done - before) / 30 >= 0.6 * 50 / 0.417
    assert simulation.window.limit <= 64


def test_rising_errors_halve_it_and_it_recovers() -> None:
    simulation = Simulation(1000)
    simulation.run(20)
    large = simulation.window.limit
    simulation.failing = 0.5
    simulation.run(5)
    assert simulation.window.limit <= large // 4
    simulation.failing = 0.0
    simulation.run(120)
    assert simulation.window.limit >= large // 2


def test_failures_one_at_a_time_say_nothing_of_many() -> None:
    window = AdaptiveWindow()
    first = window.limit
    for _ in range(50):
        window.ended(window.begun(), failed=True)
    assert window.limit == first

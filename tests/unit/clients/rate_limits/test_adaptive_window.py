"""The window of requests in flight, against simulated servers with a simulated clock."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from doteval.clients.rate_limits.adaptive_window import AdaptiveRequestWindow


class Simulation:
    """Requests to a server that works on `capacity` of them at once while the others wait."""

    def __init__(self, capacity: int, *, wanted: int = 10_000, rejects_above: int | None = None) -> None:
        self.now = 0.0
        self.window = AdaptiveRequestWindow(clock=lambda: self.now)
        self.done = 0
        self._free = [0.0] * capacity
        self._rejects_above = rejects_above
        self._wanted = wanted
        self._in_flight: list[tuple[float, int, int, bool, bool]] = []
        self._numbers = itertools.count()
        self._random = random.Random(1)
        self.failing = 0.0

    def run(self, seconds: float) -> float:
        """Simulate this many seconds; returns replies a second."""
        until, before = self.now + seconds, self.done
        while self.now < until:
            while self.window.in_flight < min(self.window.limit, self._wanted):
                self._send()
            self.now, _, era, failed, overloaded = heapq.heappop(self._in_flight)
            self.done += not failed and not overloaded
            self.window.end(era, failed=failed, overloaded=overloaded)
        return (self.done - before) / seconds

    def _send(self) -> None:
        era = self.window.begin()
        overloaded = self._rejects_above is not None and self.window.in_flight > self._rejects_above
        failed = self._random.random() < self.failing
        begin = max(self.now, heapq.heappop(self._free))
        end = begin + self._random.lognormvariate(-1.0, 0.5)
        heapq.heappush(self._free, begin if overloaded else end)
        end = self.now + 0.01 if overloaded else end
        heapq.heappush(self._in_flight, (end, next(self._numbers), era, failed, overloaded))


@pytest.mark.parametrize("capacity", [64, 256, 1000])
def test_the_window_grows_while_that_brings_more_replies(capacity: int) -> None:
    simulation = Simulation(capacity)
    simulation.run(30)
    # The median latency is 0.37 s, the mean 0.417 s.
    assert simulation.run(30) >= 0.9 * capacity / 0.417
    assert simulation.window.limit <= 4 * capacity


def test_the_window_does_not_grow_while_it_is_not_full() -> None:
    simulation = Simulation(1000, wanted=20)
    first = simulation.window.limit
    simulation.run(60)
    assert simulation.window.limit == first


def test_rejections_shrink_the_window_to_what_the_server_accepts() -> None:
    simulation = Simulation(1000, rejects_above=50)
    simulation.run(30)
    before = simulation.done
    simulation.run(30)
    assert (simulation.done - before) / 30 >= 0.6 * 50 / 0.417
    assert simulation.window.limit <= 64


def test_rising_errors_halve_the_window_and_it_recovers() -> None:
    simulation = Simulation(1000)
    simulation.run(20)
    large = simulation.window.limit
    simulation.failing = 0.5
    simulation.run(5)
    assert simulation.window.limit <= large // 4
    simulation.failing = 0.0
    simulation.run(120)
    assert simulation.window.limit >= large // 2


def test_failures_of_single_requests_do_not_shrink_the_window() -> None:
    window = AdaptiveRequestWindow()
    first = window.limit
    for _ in range(50):
        window.end(window.begin(), failed=True)
    assert window.limit == first

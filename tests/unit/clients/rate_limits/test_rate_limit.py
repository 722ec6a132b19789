"""The rate limit against simulated servers with a simulated clock."""

from __future__ import annotations

from typing import Any

import pytest

from doteval.clients.rate_limits.rate_limit import RateLimit


class Server:
    """A server with a token bucket of one second's requests. `reports`: whether its headers say what is left."""

    def __init__(self, rate: float, *, reports: bool) -> None:
        self.rate, self.size, self.reports = rate, max(1.0, rate), reports
        self.level, self.at, self.accepted, self.rejected = self.size, 0.0, 0, 0

    def send(self, now: float, stamp: float) -> dict[str, Any]:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now
        seen: dict[str, Any] = {}
        accepted = self.level >= 1.0
        wait = 0.0 if accepted else (1.0 - self.level) / self.rate
        if accepted:
            self.level -= 1.0
            self.accepted += 1
            seen["ok"] = 1
        else:
            self.rejected += 1
            seen["rejected"] = [wait, stamp, float(self.reports)]
        if self.reports:
            seen["left"] = [self.size, int(self.level), (self.size - self.level) / self.rate, stamp, 0.0]
        return seen


def run(limit: RateLimit, server: Server, begin: float, seconds: float, names: dict[str, int]) -> dict[str, int]:
    """Ask every 20 ms for as many requests as each evaluation wants; returns how many of them were accepted."""
    got = dict.fromkeys(names, 0)
    now, seen = begin, list[dict[str, Any]]()
    while now < begin + seconds:
        now += 0.02
        for observed in seen:
            limit.step(now, {"user_rates": [0, 0], "asks": [], **observed})
        seen = []
        for name, wanted in names.items():
            answer = limit.step(now, {"user_rates": [0, 0], "asks": [[name, wanted, 0]]})
            (granted,) = answer["grants"]
            for number in range(granted):
                stamp = answer["sent"] - granted + number + 1 if answer["limited"] else -1
                observed = server.send(now, stamp)
                got[name] += "ok" in observed
                seen.append(observed)
    return got


@pytest.mark.parametrize("reports", [True, False])
@pytest.mark.parametrize("rate", [5.0, 40.0, 400.0])
def test_the_whole_rate_is_used_with_hardly_a_rejection(rate: float, reports: bool) -> None:
    limit, server = RateLimit(), Server(rate, reports=reports)
    run(limit, server, 100.0, 20.0, {"a": 30})
    server.accepted = server.rejected = 0
    run(limit, server, 120.0, 60.0, {"a": 30})
    assert server.accepted >= 0.95 * rate * 60
    assert server.rejected < 0.01 * server.accepted


@pytest.mark.parametrize("reports", [True, False])
def test_evaluations_get_equal_shares_however_much_they_want(reports: bool) -> None:
    limit, server = RateLimit(), Server(50.0, reports=reports)
    run(limit, server, 100.0, 20.0, {"big": 200})
    got = run(limit, server, 120.0, 30.0, {"big": 200, "small": 5})
    assert got["small"] == pytest.approx(got["big"], rel=0.1)
    assert got["small"] + got["big"] >= 0.95 * 50 * 30


def test_an_unused_share_goes_to_other_evaluations() -> None:
    limit, server = RateLimit(), Server(50.0, reports=True)
    run(limit, server, 100.0, 10.0, {"big": 200})
    got = run(limit, server, 110.0, 30.0, {"big": 200, "rare": 0})
    assert got["big"] >= 0.95 * 50 * 30


def test_without_a_limit_no_request_waits() -> None:
    answer = RateLimit().step(1.0, {"user_rates": [0, 0], "asks": [["a", 500, 1e9]]})
    assert (answer["grants"], answer["wait"], answer["limited"]) == ([500], 0, 0)


def test_retry_after_holds_all_requests_back() -> None:
    limit = RateLimit()
    limit.step(1.0, {"user_rates": [0, 0], "asks": [], "rejected": [7.0, -1, 0]})
    for now, granted in ((2.0, 0), (7.5, 0), (8.1, 1)):
        assert limit.step(now, {"user_rates": [0, 0], "asks": [["a", 1, 0]]})["grants"] == [granted]

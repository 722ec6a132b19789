"""The watch over teardowns: each fixture has its own time, and only one that is stuck is overdue."""

from __future__ import annotations

import threading

import pytest

from doteval.pytest_runtime import pytest_internals
from doteval.pytest_runtime.fixture_watchdog import FixtureWatchdog


class Definition:
    """What the watch reads of a fixture definition."""

    def __init__(self, argname: str) -> None:
        self.argname = argname
        self.scope = "session"


class Bench:
    """A thread that waits, a clock that the test moves, and what the thread is said to tear down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.tearing_down: tuple[object, Definition] | None = None
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.end.wait, daemon=True)
        self.thread.start()
        monkeypatch.setattr(pytest_internals, "teardown_under_way", lambda _: self.tearing_down)
        self.watch = FixtureWatchdog(self.thread, 10.0, clock=lambda: self.now)

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.watch.overdue()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_teardown_that_takes_too_long_is_named(bench: Bench) -> None:
    assert bench.after(100.0) is None
    bench.tearing_down = object(), Definition("model")
    assert bench.after(0.0) is None
    assert bench.after(9.9) is None
    assert bench.after(0.2) == "the teardown of the fixture 'model' (session)"


def test_each_teardown_has_its_own_time_even_of_the_same_fixture(bench: Bench) -> None:
    for _ in range(5):
        bench.tearing_down = object(), Definition("model")
        assert bench.after(1.0) is None
        assert bench.after(9.0) is None
    bench.tearing_down = None
    assert bench.after(100.0) is None


def test_what_comes_after_the_fixtures_has_its_time_too(bench: Bench) -> None:
    bench.watch.closing()
    assert bench.after(0.0) is None
    assert bench.after(11.0) == "the end of the pytest session"
    bench.end.set()
    bench.thread.join()
    assert bench.after(100.0) is None


def test_a_load_that_nobody_waits_for_has_its_time_and_the_end_after_it_its_own(bench: Bench) -> None:
    bench.watch.closing("the load")
    assert bench.after(0.0) is None
    assert bench.after(9.0) is None
    bench.watch.closing()
    assert bench.after(2.0) is None
    bench.watch.closing("the load")
    assert bench.after(0.0) is None
    assert bench.after(11.0) == "the load"

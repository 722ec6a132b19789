"""The fixture watchdog: each teardown has the whole limit, and only a stuck one is reported."""

from __future__ import annotations

import threading

import pytest

from doteval.pytest_runtime import pytest_internals
from doteval.pytest_runtime.fixture_watchdog import FixtureWatchdog


class Definition:
    """The attributes of a fixture definition that the watchdog reads."""

    def __init__(self, argname: str) -> None:
        self.argname = argname
        self.scope = "session"


class Bench:
    """A waiting thread, a clock that the test moves, and the teardown that the thread seems to run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.tearing_down: tuple[object, Definition] | None = None
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.end.wait, daemon=True)
        self.thread.start()
        monkeypatch.setattr(pytest_internals, "teardown_under_way", lambda _: self.tearing_down)
        self.watchdog = FixtureWatchdog(self.thread, 10.0, clock=lambda: self.now)

    def after(self, seconds: float) -> str | None:
        self.now += seconds
        return self.watchdog.overdue()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_a_teardown_that_takes_too_long_is_named(bench: Bench) -> None:
    assert bench.after(100.0) is None
    bench.tearing_down = object(), Definition("model")
    assert bench.after(0.0) is None
    assert bench.after(9.9) is None
    assert bench.after(0.2) == "the teardown of the fixture 'model' (session)"


def test_each_teardown_has_the_whole_limit_even_of_the_same_fixture(bench: Bench) -> None:
    for _ in range(5):
        bench.tearing_down = object(), Definition("model")
        assert bench.after(1.0) is None
        assert bench.after(9.0) is None
    bench.tearing_down = None
    assert bench.after(100.0) is None


def test_the_end_of_the_session_has_the_limit_too(bench: Bench) -> None:
    bench.watchdog.closing()
    assert bench.after(0.0) is None
    assert bench.after(11.0) == "the end of the pytest session"
    bench.end.set()
    bench.thread.join()
    assert bench.after(100.0) is None


def test_an_abandoned_load_and_the_end_after_it_have_the_limit_each(bench: Bench) -> None:
    bench.watchdog.closing("the load")
    assert bench.after(0.0) is None
    assert bench.after(9.0) is None
    bench.watchdog.closing()
    assert bench.after(2.0) is None
    bench.watchdog.closing("the load")
    assert bench.after(0.0) is None
    assert bench.after(11.0) == "the load"

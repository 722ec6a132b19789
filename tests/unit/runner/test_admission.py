"""Admission checks: a refused call of any kind does not begin, and leaves no fixture behind."""

from __future__ import annotations

import threading

import pytest

from tests.support.scheduler_bench import KINDS, Bench, four_kinds
from tests.unit.conftest import OnBench

SOURCE = "ran = []\n" + four_kinds("ran.append(1)", "ran.append(1)")


class ClosedError(Exception):
    """The refusal of the check in these tests."""


class Turnstile:
    """An admission check that admits `calls` calls. `open_at_once`: `admits_now` is true all the time."""

    def __init__(self, calls: int, *, open_at_once: bool = False) -> None:
        self._left = calls
        self._open_at_once = open_at_once
        self._lock = threading.Lock()
        self.asked_on: set[str] = set()

    def admits_now(self) -> bool:
        return self._open_at_once

    def refuses_now(self) -> bool:
        return self._left < 0

    def refusal(self) -> BaseException | None:
        self.asked_on.add(threading.current_thread().name)
        with self._lock:
            self._left -= 1
            return None if self._left >= 0 else ClosedError("enough")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("concurrency", [1, 4])
def test_refused_calls_do_not_begin(on_bench: OnBench, kind: str, concurrency: int) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(7)
        reported, other = bench.assign(kind, 30, check=check), bench.assign(kind, 5)
        bench.serve()
        assert len(bench.module.ran) == 12
        assert sorted(reported.recorded.values()) == [1] * 7
        assert isinstance(reported.ended_by, ClosedError)
        # The check belongs to one assignment, not to the evaluation.
        assert sorted(other.recorded) == list(range(5))
        assert other.ended_by is None
        assert len(bench.module.made) == len(bench.module.torn)
        if kind.startswith("eval_async"):
            assert all(name.startswith("doteval-admission") for name in check.asked_on), "the loop must not wait"

    on_bench(SOURCE, body, concurrency=concurrency)


def test_a_check_that_admits_now_is_not_asked_on_the_loop(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(0, open_at_once=True)
        reported = bench.assign("eval_async", 20, check=check)
        bench.serve()
        assert len(reported.recorded) == 20
        assert check.asked_on == set()

    on_bench(SOURCE, body)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_set_up_after_a_known_refusal(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(0)
        assert isinstance(check.refusal(), ClosedError)
        reported = [bench.assign(kind, 5, check=check) for _ in range(3)]
        bench.serve()
        assert [each.recorded for each in reported] == [{}] * 3
        assert all(isinstance(each.ended_by, ClosedError) for each in reported)
        assert bench.module.made == []

    on_bench(SOURCE, body)

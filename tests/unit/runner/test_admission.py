"""Gates before calls: what one refuses does not begin, whatever kind of call it is, and nothing is left behind."""

from __future__ import annotations

import threading

import pytest

from tests.support.scheduler_bench import KINDS, Bench, four_kinds
from tests.unit.conftest import OnBench

SOURCE = "ran = []\n" + four_kinds("ran.append(1)", "ran.append(1)")


class ClosedError(Exception):
    """What the gate here refuses with."""


class Turnstile:
    """Lets so many calls begin. `open_at_once` says that it need not be asked as long as it does."""

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
def test_what_the_gate_refuses_does_not_begin(on_bench: OnBench, kind: str, concurrency: int) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(7)
        reported, other = bench.assign(kind, 30, check=check), bench.assign(kind, 5)
        bench.serve()
        assert len(bench.module.ran) == 12
        assert sorted(reported.recorded.values()) == [1] * 7
        assert isinstance(reported.ended_by, ClosedError)
        # Others of the same evaluation are not its business.
        assert sorted(other.recorded) == list(range(5))
        assert other.ended_by is None
        assert len(bench.module.made) == len(bench.module.torn)
        if kind.startswith("eval_async"):
            assert all(name.startswith("doteval-admission") for name in check.asked_on), "the loop must not wait"

    on_bench(SOURCE, body, concurrency=concurrency)


def test_a_gate_that_is_open_is_not_asked_on_the_loop(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(0, open_at_once=True)
        reported = bench.assign("eval_async", 20, check=check)
        bench.serve()
        assert len(reported.recorded) == 20
        assert check.asked_on == set()

    on_bench(SOURCE, body)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_set_up_for_what_is_known_to_be_refused(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        check = Turnstile(0)
        assert isinstance(check.refusal(), ClosedError)
        reported = [bench.assign(kind, 5, check=check) for _ in range(3)]
        bench.serve()
        assert [each.recorded for each in reported] == [{}] * 3
        assert all(isinstance(each.ended_by, ClosedError) for each in reported)
        assert bench.module.made == []

    on_bench(SOURCE, body)

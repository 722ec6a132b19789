"""How the scheduler ends: it winds down, is interrupted, or breaks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from doteval.core.results import Row
from doteval.runner.assignments import WindingDownError
from tests.support.scheduler_bench import KINDS, SIMPLE, TIMEOUT_SECONDS, Bench, Reported, four_kinds, give_up, rows
from tests.unit.conftest import OnBench

# Rows stay in flight until `release`; `begun` is called as each begins.
HELD = """
release = threading.Event()
""" + four_kinds(
    """
events.append(x)
begun()
while not release.is_set():
    await asyncio.sleep(0.001)
""",
    """
events.append(x)
begun()
release.wait(20)
""",
)


@pytest.mark.parametrize("kind", KINDS)
def test_winding_down_finishes_rows_in_flight_and_begins_none(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        def begun() -> None:
            with bench.module.lock:
                if len(bench.module.events) == 3:
                    bench.scheduler.wind_down()
                    # Posted after it, so that the rows are released when the scheduler winds down already.
                    bench.scheduler.post(bench.module.release.set)

        bench.module.begun = begun
        reported = [bench.assign(kind, 10) for _ in range(3)]
        bench.serve_until_wound_down()
        assert len(bench.module.events) == 3
        assert reported[0].recorded == Counter(bench.module.events)
        assert set(reported[0].statuses) == {"done"}
        assert [each.recorded for each in reported[1:]] == [Counter(), Counter()]
        for each in reported:
            assert isinstance(each.ended_by, WindingDownError)
        assert len(bench.module.made) == len(bench.module.torn) == (3 if kind.endswith("own") else 0)

    on_bench(HELD, body, concurrency=3)


def test_winding_down_in_the_middle_of_sync_rows(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.module.wind_down = bench.scheduler.wind_down
        reported = bench.assign("eval_sync", 10)
        bench.serve_until_wound_down()
        assert reported.recorded == Counter(range(4))
        assert isinstance(reported.ended_by, WindingDownError)

    on_bench(four_kinds("if x == 3: wind_down()"), body)


def test_an_assignment_that_comes_too_late_ends_at_once(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.scheduler.wind_down()
        meanwhile = bench.assign("eval_sync")
        bench.serve_until_wound_down()
        after = bench.assign("eval_sync")
        for reported in (meanwhile, after):
            assert isinstance(reported.ended_by, WindingDownError)
            assert not reported.outcomes

    on_bench(SIMPLE, body)


def test_assignments_made_during_the_shutdown_all_end(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        left = threading.Event()

        def keep_assigning() -> list[Reported]:
            reported = []
            while not left.is_set():
                reported.append(bench.assign("eval_sync"))
            return reported

        with ThreadPoolExecutor(2) as pool:
            assigning = [pool.submit(keep_assigning) for _ in range(2)]
            try:
                bench.scheduler.wind_down()
                bench.serve_until_wound_down()
            finally:
                left.set()
            for each in (reported for future in assigning for reported in future.result(TIMEOUT_SECONDS)):
                assert each.over.is_set()
                assert each.ended_by is None or isinstance(each.ended_by, WindingDownError)

    on_bench(SIMPLE, body)


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_tears_down_the_rows_in_flight(on_bench: OnBench, kind: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def body(bench: Bench) -> None:
        def begun() -> None:
            with bench.module.lock:
                if len(bench.module.events) == 3:
                    bench.scheduler.post(interrupt)
                    if not kind.startswith("eval_async"):
                        # Threads cannot be cancelled.
                        bench.module.release.set()

        bench.module.begun = begun
        with pytest.raises(KeyboardInterrupt):
            bench.run(kind, 100)
        (reported,) = bench.reported
        if kind.startswith("eval_async"):
            # They are cancelled, so they stay pending.
            assert not reported.recorded
        else:
            assert set(reported.statuses) <= {"done"}
            assert len(reported.recorded) < 20
        assert len(bench.module.made) == len(bench.module.torn)
        bench.setup.close()

    on_bench(HELD, body, concurrency=3)


def test_ctrl_c_before_a_row_has_begun_on_the_loop(on_bench: OnBench) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def body(bench: Bench) -> None:
        free = threading.Event()

        def drawn() -> Iterator[Row]:
            # The loop is busy, so it gets the row and its cancellation at the same time.
            bench.loop.soon(free.wait, TIMEOUT_SECONDS)
            bench.scheduler.post(interrupt)
            threading.Timer(0.1, free.set).start()
            yield from rows(1)

        with pytest.raises(KeyboardInterrupt):
            bench.run("eval_async_own", drawn())
        assert bench.module.events == []
        assert len(bench.module.made) == len(bench.module.torn) == 1
        bench.setup.close()

    on_bench(HELD, body)


def test_ctrl_c_in_a_row_tears_it_down_and_ends_the_run(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        with pytest.raises(KeyboardInterrupt):
            bench.run("eval_sync_own", 10)
        assert bench.reported[0].recorded == Counter(range(2))
        assert len(bench.module.made) == len(bench.module.torn) == 3
        bench.setup.close()

    on_bench(four_kinds("if x == 2: raise KeyboardInterrupt"), body)


def test_an_error_of_the_scheduler_ends_all_assignments(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.module.begun = lambda: bench.scheduler.post(give_up)
        flying, waiting = bench.assign("eval_async"), bench.assign("eval_sync")
        with pytest.raises(TimeoutError, match="in vain"):
            bench.serve_until_wound_down()
        after = bench.assign("eval_sync")
        bench.module.release.set()
        assert isinstance(flying.ended_by, TimeoutError)
        assert isinstance(waiting.ended_by, TimeoutError)
        assert isinstance(after.ended_by, WindingDownError)

    on_bench(HELD, body)

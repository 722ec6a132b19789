"""How the conductor leaves: it is told to wind down, interrupted, or serving breaks."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from doteval.core.results import Row
from doteval.runner.assignments import WindingDownError
from tests.support.scheduler_bench import KINDS, PATIENCE, SIMPLE, Bench, Told, four_kinds, give_up, rows
from tests.unit.conftest import OnBench

# Rows that are in flight until `release`; `begun` is called as each begins.
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
def test_winding_down_ends_what_is_in_flight_and_begins_nothing(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        def begun() -> None:
            with bench.module.lock:
                if len(bench.module.events) == 3:
                    bench.conductor.wind_down()
                    # Behind it: the rows are released when the conductor knows that it leaves.
                    bench.conductor.post(bench.module.release.set)

        bench.module.begun = begun
        told = [bench.assign(kind, 10) for _ in range(3)]
        bench.serve_until_left()
        assert len(bench.module.events) == 3
        assert told[0].recorded == Counter(bench.module.events)
        assert set(told[0].statuses) == {"done"}
        assert [each.recorded for each in told[1:]] == [Counter(), Counter()]
        for each in told:
            assert isinstance(each.cut, WindingDownError)
        assert len(bench.module.made) == len(bench.module.torn) == (3 if kind.endswith("own") else 0)

    on_bench(HELD, body, concurrency=3)


def test_winding_down_in_the_middle_of_sync_rows(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.module.wind_down = bench.conductor.wind_down
        told = bench.assign("eval_sync", 10)
        bench.serve_until_left()
        assert told.recorded == Counter(range(4))
        assert isinstance(told.cut, WindingDownError)

    on_bench(four_kinds("if x == 3: wind_down()"), body)


def test_who_assigns_too_late_is_told_so(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.conductor.wind_down()
        meanwhile = bench.assign("eval_sync")
        bench.serve_until_left()
        after = bench.assign("eval_sync")
        for told in (meanwhile, after):
            assert isinstance(told.cut, WindingDownError)
            assert not told.outcomes

    on_bench(SIMPLE, body)


def test_nobody_waits_for_ever_who_assigns_while_it_leaves(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        left = threading.Event()

        def keep_assigning() -> list[Told]:
            told = []
            while not left.is_set():
                told.append(bench.assign("eval_sync"))
            return told

        with ThreadPoolExecutor(2) as pool:
            assigning = [pool.submit(keep_assigning) for _ in range(2)]
            try:
                bench.conductor.wind_down()
                bench.serve_until_left()
            finally:
                left.set()
            for each in (told for future in assigning for told in future.result(PATIENCE)):
                assert each.over.is_set()
                assert each.cut is None or isinstance(each.cut, WindingDownError)

    on_bench(SIMPLE, body)


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_while_working_off_tears_down_what_is_in_flight(on_bench: OnBench, kind: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def body(bench: Bench) -> None:
        def begun() -> None:
            with bench.module.lock:
                if len(bench.module.events) == 3:
                    bench.conductor.post(interrupt)
                    if not kind.startswith("eval_async"):
                        # Threads cannot be cancelled.
                        bench.module.release.set()

        bench.module.begun = begun
        with pytest.raises(KeyboardInterrupt):
            bench.work_off(kind, 100)
        (told,) = bench.told
        if kind.startswith("eval_async"):
            # They are cancelled: pending, and neither done nor failed.
            assert not told.recorded
        else:
            assert set(told.statuses) <= {"done"}
            assert len(told.recorded) < 20
        assert len(bench.module.made) == len(bench.module.torn)
        bench.stage.close()

    on_bench(HELD, body, concurrency=3)


def test_ctrl_c_before_a_row_that_was_handed_to_the_loop_has_begun(on_bench: OnBench) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    def body(bench: Bench) -> None:
        free = threading.Event()

        def drawn() -> Iterator[Row]:
            # The loop is busy: it hears of the row, and that it is cancelled, at the same time.
            bench.loop.soon(free.wait, PATIENCE)
            bench.conductor.post(interrupt)
            threading.Timer(0.1, free.set).start()
            yield from rows(1)

        with pytest.raises(KeyboardInterrupt):
            bench.work_off("eval_async_own", drawn())
        assert bench.module.events == []
        assert len(bench.module.made) == len(bench.module.torn) == 1
        bench.stage.close()

    on_bench(HELD, body)


def test_ctrl_c_in_a_row_tears_it_down_and_ends_working_off(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        with pytest.raises(KeyboardInterrupt):
            bench.work_off("eval_sync_own", 10)
        assert bench.told[0].recorded == Counter(range(2))
        assert len(bench.module.made) == len(bench.module.torn) == 3
        bench.stage.close()

    on_bench(four_kinds("if x == 2: raise KeyboardInterrupt"), body)


def test_when_serving_breaks_whoever_waits_hears_of_it(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        bench.module.begun = lambda: bench.conductor.post(give_up)
        flying, waiting = bench.assign("eval_async"), bench.assign("eval_sync")
        with pytest.raises(TimeoutError, match="in vain"):
            bench.serve_until_left()
        after = bench.assign("eval_sync")
        bench.module.release.set()
        assert isinstance(flying.cut, TimeoutError)
        assert isinstance(waiting.cut, TimeoutError)
        assert isinstance(after.cut, WindingDownError)

    on_bench(HELD, body)

"""The scheduler: how many rows are in flight, in which order they begin, and which memory they leave behind."""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import pytest

from doteval.concurrency import Adaptive
from doteval.core.results import Outcome, Row
from doteval.pytest_runtime import pytest_internals as internals
from doteval.runner.calls import CallPolicy
from tests.support.scheduler_bench import KINDS, SIMPLE, TIMEOUT_SECONDS, Bench, four_kinds, rows
from tests.unit.conftest import OnBench

# Concurrency.

# The first rows wait for each other, so that a window that opens less wide than it should fails the test.
TOGETHER = """
in_flight, peak, wanted = [0], [0], [0]

def enter():
    with lock:
        in_flight[0] += 1
        peak[0] = max(peak[0], in_flight[0])

def leave():
    with lock:
        in_flight[0] -= 1
""" + four_kinds(
    """
enter()
while peak[0] < wanted[0]:
    await asyncio.sleep(0)
await asyncio.sleep(0)
await asyncio.sleep(0)
leave()
""",
    """
enter()
while peak[0] < wanted[0]:
    time.sleep(0.0001)
time.sleep(0.0001)
leave()
""",
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [1, 7])
def test_the_window_is_reached_and_never_exceeded(on_bench: OnBench, kind: str, limit: int) -> None:
    def body(bench: Bench) -> None:
        bench.module.wanted[0] = limit
        reported = [bench.assign(kind, 20) for _ in range(3)]
        bench.serve()
        assert bench.module.peak == [limit]
        assert bench.module.in_flight == [0]
        for each in reported:
            assert each.recorded == Counter(range(20))
            assert set(each.statuses) == {"done"}
            assert each.ended_by is None
        assert len(bench.module.made) == len(bench.module.torn) == (60 if kind.endswith("own") else 0)

    on_bench(TOGETHER, body, concurrency=limit)


def test_the_default_concurrency_is_one_for_sync_and_ten_for_async(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        assert [bench.scheduler.rows_at_once(bench.items[kind]) for kind in KINDS] == [10, 10, 1, 1]
        bench.module.wanted[0] = 10
        bench.assign("eval_async", 30)
        bench.serve()
        assert bench.module.peak == [10]

    on_bench(TOGETHER, body)


def test_an_adaptive_window_grows_from_task_to_task(on_bench: OnBench) -> None:
    source = """
in_flight, peak = [0], [0]

@foreach("x", [(1,)])
async def eval_it(x):
    in_flight[0] += 1
    peak[0] = max(peak[0], in_flight[0])
    # Each row takes the same time, so more rows at once are more rows a second.
    await asyncio.sleep(0.002)
    in_flight[0] -= 1
    return OK
"""

    def body(bench: Bench) -> None:
        for _ in range(300):
            bench.assign("eval_it", 1)
        bench.serve()
        assert 2 < bench.module.peak[0] <= 20

    strategy = Adaptive(initial_concurrency=2, max_concurrency=20, adaptation_interval=0.005, throughput_window=1)
    on_bench(source, body, concurrency=strategy)


def test_rows_of_later_tasks_run_beside_a_slow_row(on_bench: OnBench) -> None:
    source = """
@foreach("x", [(1,)])
async def eval_it(x):
    if x == 0:
        while len(events) < 20:
            await asyncio.sleep(0)
    events.append(x)
    return OK
"""

    def body(bench: Bench) -> None:
        slow = bench.assign("eval_it", 1)
        quick = [bench.assign("eval_it", rows(1, first)) for first in range(1, 21)]
        bench.serve()
        assert bench.module.events[-1] == 0
        assert [each.statuses for each in (slow, *quick)] == [["done"]] * 21

    on_bench(source, body, concurrency=2)


def test_an_assignment_ends_while_rows_of_the_next_wait_behind_slow_ones(on_bench: OnBench) -> None:
    source = """
release = threading.Event()

@foreach("x", [(1,)])
async def eval_it(x):
    while x and not release.is_set():
        await asyncio.sleep(0.001)
    return OK
"""

    def body(bench: Bench) -> None:
        quick = bench.assign("eval_it", 1)
        slow = bench.assign("eval_it", rows(20, first=1))

        def release() -> None:
            ended_alone.append(quick.over.wait(TIMEOUT_SECONDS) and not slow.ends)
            bench.module.release.set()

        ended_alone: list[bool] = []
        threading.Thread(target=release, daemon=True).start()
        bench.serve()
        assert ended_alone == [True]
        assert slow.recorded == Counter(range(1, 21))

    on_bench(source, body, concurrency=5)


def test_sync_rows_and_their_fixtures_run_on_the_schedulers_thread(on_bench: OnBench) -> None:
    source = """
@pytest.fixture(scope="session")
def wide():
    events.append(threading.get_ident())

@pytest.fixture
def own(wide):
    events.append(threading.get_ident())
    yield
    events.append(threading.get_ident())

@foreach("x", [(1,)])
def eval_it(x, own):
    events.append(threading.get_ident())
    return OK
"""

    def body(bench: Bench) -> None:
        bench.assign("eval_it", 3)
        bench.serve()
        assert bench.module.events == [threading.get_ident()] * 10

    on_bench(source, body)


def test_no_row_runs_beside_a_row_that_is_to_run_alone(on_bench: OnBench) -> None:
    source = """
@foreach("x", [(1,)])
async def eval_it(x):
    events.append(("begin", x))
    for _ in range(5):
        await asyncio.sleep(0)
    events.append(("end", x))
    return OK
"""

    def body(bench: Bench) -> None:
        bench.assign("eval_it", 5)
        bench.assign("eval_it", rows(1, 99), alone=True)
        bench.assign("eval_it", 5)
        bench.serve()
        events = bench.module.events
        begin = events.index(("begin", 99))
        assert events[begin + 1] == ("end", 99)
        assert begin == 10
        assert len(events) == 22

    on_bench(source, body, concurrency=4)


# Order.

TWO_MODELS = """
@pytest.fixture(scope="module", params=["p", "q"])
def model(request):
    events.append(f"+{request.param}")
    yield request.param
    events.append(f"-{request.param}")

@foreach("x", [(1,)])
async def eval_it(x, model):
    await asyncio.sleep(0)
    events.append(f"{model}{x}")
    return OK
"""


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        # During its time slice, an evaluation goes on with later assignments, without another set-up.
        (60.0, [("p", 6), ("q", 6)]),
        # After it, the next evaluation begins, in the middle of an assignment.
        (0.0, [("p", 1), ("q", 1), ("p", 1), ("q", 1)]),
    ],
)
def test_evaluations_share_the_process_in_time_slices(
    on_bench: OnBench, monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr("doteval.runner.time_slices._SLICE_SECONDS", seconds)
    # The time of the set-up does not count here.
    monkeypatch.setattr("doteval.runner.time_slices._SLICE_PER_SETUP", 0.0)

    def body(bench: Bench) -> None:
        for name in ("eval_it[p]", "eval_it[q]", "eval_it[q]", "eval_it[p]"):
            bench.assign(name, 3)
        bench.serve()
        events = bench.module.events
        places = [index for index, event in enumerate(events) if event[0] in "+-"]
        slices = [
            (events[start][1], Counter(events[start + 1 : end]))
            for start, end in zip(places[::2], places[1::2], strict=True)
        ]
        assert [(model, sum(rows.values())) for model, rows in slices][: len(expected)] == expected
        assert all(event.startswith(model) for model, rows in slices for event in rows)
        ran = sum((rows for _, rows in slices), Counter())
        assert ran == Counter([f"{model}{x}" for model in "pq" for x in range(3)] * 2)

    on_bench(TWO_MODELS, body, concurrency=1)


class GivenPermits:
    """Permits that the test gives. `on_short` is called when there are too few."""

    def __init__(self, permits: int, on_short: Callable[[], None] = lambda: None) -> None:
        self.permits = permits
        self.on_short = on_short
        self.wake: Callable[[], None] = lambda: None

    def take(self, rows: int, wake: Callable[[], None]) -> bool:
        if self.permits < rows:
            self.wake = wake
            self.on_short()
            return False
        self.permits -= rows
        return True

    def give(self, permits: int) -> None:
        self.permits += permits
        self.wake()


def test_rows_that_wait_for_permits_let_others_go_first(on_bench: OnBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doteval.runner.time_slices._SLICE_SECONDS", 60.0)

    def body(bench: Bench) -> None:
        permits = GivenPermits(0)

        def record(row: Row, outcome: Outcome) -> None:
            if row.index == 12:
                # One more for each change to another evaluation.
                permits.give(7)

        # Another evaluation, the same one, and rows of it that need no permits.
        limited = [bench.assign(name, 3, permits=permits) for name in ("eval_it[p]", "eval_it[q]")]
        bench.assign("eval_it[q]", rows(3, first=10), record=record)
        bench.serve()
        q, p = (["+q", "q10", "q11", "q12", "q0", "q1", "q2", "-q"], ["+p", "p0", "p1", "p2", "-p"])
        assert bench.module.events == q + p
        assert [each.recorded for each in limited] == [Counter(range(3))] * 2
        assert permits.permits == 0

    on_bench(TWO_MODELS, body, concurrency=1)


def test_an_evaluation_that_was_set_up_waits_for_its_permits_before_another_is_set_up(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        # The permit that allows the set-up does not outlast it.
        permits = GivenPermits(1, lambda: permits.give(3))
        bench.assign("eval_it[p]", 3, permits=permits)
        bench.assign("eval_it[q]", 1)
        bench.serve()
        assert bench.module.events == ["+p", "p0", "p1", "p2", "-p", "+q", "q0", "-q"]

    on_bench(TWO_MODELS, body, concurrency=1)


def test_permits_that_come_at_once_are_used(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        # They come while the scheduler still looks for rows that need none.
        permits = GivenPermits(0, lambda: permits.give(1))
        limited = bench.assign("eval_it[p]", 3, permits=permits)
        bench.serve()
        assert limited.recorded == Counter(range(3))

    on_bench(TWO_MODELS, body, concurrency=1)


@pytest.mark.parametrize("kind", ["eval_sync", "eval_sync_own"])
def test_sync_rows_run_in_order(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        for first in (0, 20, 40):
            bench.assign(kind, rows(20, first))
        bench.serve()
        assert bench.module.events == list(range(60))

    on_bench(SIMPLE, body)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_enter_the_journal_before_they_begin_and_leave_it_before_they_are_recorded(
    on_bench: OnBench, kind: str
) -> None:
    def body(bench: Bench) -> None:
        log: list[tuple[str, int]] = []

        def record(row: Row, _: object) -> None:
            log.append(("recorded", row.index))

        bench.assign(kind, 20, note=functools.partial(ListEntry, log), record=record)
        bench.serve()
        for index in range(20):
            assert [what for what, of in log if of == index] == ["noted", "completed", "recorded"]

    on_bench(SIMPLE, body, concurrency=3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_journal_has_calls_with_a_timeout(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        log: list[tuple[str, int]] = []
        bench.assign(kind, 20, note=functools.partial(ListEntry, log), policy=CallPolicy(timeout=60.0))
        bench.serve()
        for index in range(20):
            assert [what for what, of in log if of == index] == ["noted", "called", "returned", "completed"]

    on_bench(SIMPLE, body, concurrency=3)


class ListEntry:
    """A journal entry that writes into a list."""

    def __init__(self, log: list[tuple[str, int]], begun: Sequence[Row]) -> None:
        (row,) = begun
        self._log = log
        self._index = row.index
        self._add("noted")

    def called(self, limit: float) -> None:
        assert limit >= 60.0
        self._add("called")

    def returned(self) -> None:
        self._add("returned")

    def completed(self) -> None:
        self._add("completed")

    def _add(self, what: str) -> None:
        self._log.append((what, self._index))


def test_posted_functions_run_on_the_schedulers_thread_between_rows(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        events = bench.module.events
        seen: list[tuple[int, int]] = []
        bench.module.hook = lambda: bench.scheduler.post(lambda: seen.append((threading.get_ident(), len(events))))
        bench.assign("eval_sync", 3)
        bench.serve()
        assert seen == [(threading.get_ident(), count) for count in (1, 2, 3)]

    on_bench(four_kinds("events.append(x)\nhook()"), body)


# Memory.


@pytest.mark.parametrize("kind", ["eval_it", "eval_async"])
def test_rows_leave_nothing_behind_in_shared_fixtures(on_bench: OnBench, kind: str) -> None:
    source = """
@pytest.fixture(scope="session")
def of_session():
    return object()

@pytest.fixture(scope="module")
async def of_module(of_session):
    yield object()

@pytest.fixture
def own(of_module, of_session, tmp_path):
    yield object()

@pytest.fixture
async def own_async(own, of_session):
    yield object()

@foreach("x", [(1,)])
def eval_it(x, own_async, request):
    request.getfixturevalue("of_module")
    return OK

@foreach("x", [(1,)])
async def eval_async(x, own_async, request):
    request.getfixturevalue("of_module")
    return OK
"""

    def body(bench: Bench) -> None:
        item = bench.items[kind]
        definitions = internals.fixture_info(item).name2fixturedefs
        wide = [definitions[name][-1] for name in ("of_session", "of_module", "tmp_path_factory")]

        def left() -> tuple[int, ...]:
            stack = item.session._setupstate.stack
            return (
                *(len(each._finalizers) for each in wide),
                *(len(finalizers) for finalizers, _ in stack.values()),
                len(item.stash._storage),
                len(item.user_properties),
            )

        counts: list[tuple[int, ...]] = []

        def looking() -> Iterator[Row]:
            for row in rows(300):
                if row.index in (50, 299):
                    counts.append(left())
                yield row

        reported = bench.assign(kind, looking())
        bench.serve()
        assert set(reported.statuses) == {"done"}
        early, late = counts
        # Up to four rows were in flight at either time.
        assert all(after - before <= 4 for before, after in zip(early, late, strict=True)), (early, late)

    on_bench(source, body, concurrency=4)

"""The scheduler when datasets, fixtures, rows or the recording raise: what ends, and what goes on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from doteval.core.results import Outcome, Row
from doteval.errors import UsageError
from doteval.pytest_runtime.evaluation_setup import LoadFailedError, load_session_fixtures
from doteval.runner.calls import CallPolicy
from tests.support.scheduler_bench import KINDS, Bench, Reported, four_kinds, rows
from tests.unit.conftest import OnBench

PLAIN = four_kinds("pass")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error", [ValueError("broken"), pytest.skip.Exception("no dataset"), SystemExit()], ids=["error", "skip", "exit"]
)
def test_a_dataset_that_raises_ends_only_its_assignment(on_bench: OnBench, kind: str, error: BaseException) -> None:
    def broken() -> Iterator[Row]:
        yield from rows(5)
        raise error

    def body(bench: Bench) -> None:
        broken_one, after = bench.assign(kind, broken()), bench.assign(kind, 5)
        bench.serve()
        assert broken_one.recorded == after.recorded == Counter(range(5))
        assert broken_one.ended_by is error
        assert after.ended_by is None

    on_bench(PLAIN, body, concurrency=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_that_raises_ends_only_its_assignment(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        recorded: list[int] = []

        def record(row: Row, _: Outcome) -> None:
            recorded.append(row.index)
            if row.index == 2:
                raise OSError("the disk is full")

        broken_one, after = bench.assign(kind, 1000, record=record), bench.assign(kind, 5)
        bench.serve()
        assert isinstance(broken_one.ended_by, OSError)
        # No more rows than were in flight by then.
        assert len(recorded) < 50
        assert after.recorded == Counter(range(5))
        assert after.ended_by is None

    on_bench(PLAIN, body, concurrency=3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_with_too_few_values_fails_without_a_call(on_bench: OnBench, kind: str) -> None:
    def short() -> Iterator[Row]:
        yield Row(0, "k", {"x": 0})
        yield Row(1, "k", {})
        yield Row(2, "k", {"x": 2})

    def body(bench: Bench) -> None:
        reported = bench.assign(kind, short())
        bench.serve()
        assert reported.statuses == ["done", "failed", "done"]
        assert "the row has 0 values for 1 column" in str(reported.errors[1])
        assert sorted(bench.module.events) == [0, 2]

    on_bench(four_kinds("events.append(x)"), body, concurrency=3)


# Shared fixtures.

FAILING = """
@pytest.fixture(scope="session", params=["good", "bad", "skips"])
def model(request):
    events.append(request.param)
    if request.param == "bad":
        raise RuntimeError("no GPU")
    if request.param == "skips":
        pytest.skip("not here")
    return request.param

@pytest.fixture
def own(model):
    return model

@foreach("x", [(1,)])
def eval_it(x, model):
    return OK

@foreach("x", [(1,)])
async def eval_own(x, own):
    return OK

@pytest.fixture(scope="module")
def leaves():
    raise SystemExit("no GPU either")

@foreach("x", [(1,)])
def eval_leaves(x, leaves):
    return OK

@pytest.mark.skip(reason="not today")
@foreach("x", [(1,)])
def eval_skipped(x):
    return OK
"""


@pytest.mark.parametrize("kind", ["eval_it", "eval_own"])
def test_a_failed_load_ends_exactly_the_assignments_of_its_evaluation(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        names = ["good", "bad", "good", "bad", "bad", "skips", "skips", "bad", "good"]
        reported = [(name, bench.assign(f"{kind}[{name}]", 3)) for name in names]
        bench.serve()
        for name, each in reported:
            if name == "good":
                assert each.ended_by is None
                assert each.statuses == ["done"] * 3
            else:
                assert isinstance(each.ended_by, LoadFailedError)
                assert each.ended_by.item is bench.items[f"{kind}[{name}]"]
                assert isinstance(each.ended_by.__cause__, pytest.skip.Exception) is (name == "skips")
                assert not each.recorded

    on_bench(FAILING, body)


@pytest.mark.parametrize("kind", ["eval_it[bad]", "eval_own[bad]"])
def test_a_task_that_comes_after_a_failed_load_fails_the_same_way(on_bench: OnBench, kind: str) -> None:
    def body(bench: Bench) -> None:
        reported: list[Reported] = []

        def assign_again() -> None:
            assignment, each = bench.assignment(kind, 3)
            reported.append(each)

            def ended(error: BaseException | None) -> None:
                each.ended(error)
                if len(reported) < 5:
                    assign_again()
                else:
                    bench.scheduler.wind_down()

            assignment.ended = ended
            bench.scheduler.assign(assignment)

        assign_again()
        bench.serve_until_wound_down()
        assert [isinstance(each.ended_by, LoadFailedError) for each in reported] == [True] * 5
        assert not any(each.recorded for each in reported)
        # The model is not loaded again for each.
        assert bench.module.events == ["bad"]

    on_bench(FAILING, body)


@pytest.mark.parametrize(("name", "skipped"), [("eval_leaves", False), ("eval_skipped", True)])
def test_system_exit_in_a_fixture_and_a_skip_mark_are_failed_loads(on_bench: OnBench, name: str, skipped: bool) -> None:
    def body(bench: Bench) -> None:
        reported = [bench.assign(name), bench.assign("eval_it[good]"), bench.assign(name)]
        bench.serve()
        assert reported[1].statuses == ["done"]
        for each in (reported[0], reported[2]):
            assert isinstance(each.ended_by, LoadFailedError)
            assert isinstance(each.ended_by.__cause__, pytest.skip.Exception) is skipped
            assert not each.recorded

    on_bench(FAILING, body)


def test_load_session_fixtures_returns_failures_and_loads_nothing_twice(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        failures = load_session_fixtures([bench.items["eval_it[bad]"], bench.items["eval_own[bad]"]])
        assert [failure.item.evaluation_name for failure in failures] == ["eval_it[bad]"]
        assert str(failures[0].__cause__) == "no GPU"
        reported = [bench.assign("eval_it[bad]"), bench.assign("eval_own[bad]")]
        bench.serve()
        assert all(isinstance(each.ended_by, LoadFailedError) for each in reported)
        assert bench.module.events == ["bad"]

    on_bench(FAILING, body)


def test_invalid_settings_of_an_evaluation_end_its_assignments(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        object.__setattr__(bench.items["eval_async"].spec, "retries", "often")
        bad = [bench.assign("eval_async"), bench.assign("eval_async")]
        good = bench.assign("eval_sync")
        bad.append(bench.assign("eval_async"))
        bench.serve()
        assert all(isinstance(each.ended_by, UsageError) for each in bad)
        assert good.statuses == ["done"]

    on_bench(PLAIN, body)


def test_a_teardown_that_raises_between_evaluations_stops_nothing(on_bench: OnBench) -> None:
    source = """
@pytest.fixture(scope="class")
def model(request):
    yield
    raise RuntimeError(f"no teardown of {request.node.name}")

class EvalP:
    @foreach("x", [(1,)])
    def eval_it(self, x, model):
        return OK

class EvalQ(EvalP):
    pass
"""
    messages: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(self.format(record))

    def body(bench: Bench) -> None:
        reported = [bench.assign("EvalP::eval_it", 2), bench.assign("EvalQ::eval_it", 2)]
        # The last teardown raises, so that the caller learns of it.
        with pytest.raises(RuntimeError, match="no teardown of EvalQ"):
            bench.serve()
        assert [each.statuses for each in reported] == [["done"] * 2] * 2

    logger, handler = logging.getLogger("doteval.pytest_runtime"), Handler()
    logger.addHandler(handler)
    try:
        on_bench(source, body)
    finally:
        logger.removeHandler(handler)
    assert len(messages) == 1
    assert "no teardown of EvalP" in messages[0]


# Fixtures of rows.


@pytest.mark.parametrize("kind", ["eval_it", "eval_async"])
def test_errors_of_row_fixtures_belong_to_the_row(on_bench: OnBench, kind: str) -> None:
    source = """
made, torn = [], []

@pytest.fixture
def outer():
    made.append("outer")
    yield
    torn.append("outer")

@pytest.fixture
def own(outer):
    n = made.count("own")
    made.append("own")
    if n == 1:
        raise ValueError("no set-up")
    if n == 2:
        raise SystemExit("nor now")
    if n == 3:
        pytest.skip("not this one")
    yield
    if n == 5:
        raise ValueError("no teardown")
    if n == 6:
        raise SystemExit("nor then")

@foreach("x", [(1,)])
def eval_it(x, own):
    return OK

@foreach("x", [(1,)])
async def eval_async(x, own):
    return OK
"""

    def body(bench: Bench) -> None:
        reported = bench.assign(kind, 8)
        bench.serve()
        assert reported.statuses == ["done", "failed", "failed", "skipped", "done", "done", "done", "done"]
        # Errors do not hide one another, and an error in a teardown leaves the row done.
        for index, (where, what) in {
            1: ("at the set-up of a fixture", "no set-up"),
            2: ("at the set-up of a fixture", "nor now"),
            3: ("", "not this one"),
            5: ("at the teardown of a fixture", "no teardown"),
            6: ("at the teardown of a fixture", "nor then"),
        }.items():
            assert where in str(reported.errors[index])
            assert what in str(reported.errors[index])
        assert [reported.errors[index] for index in (0, 4, 7)] == [None] * 3
        assert reported.ended_by is None
        assert bench.module.made.count("outer") == bench.module.torn.count("outer") == 8

    on_bench(source, body, concurrency=1)


def test_an_async_fixture_and_a_row_that_looks_one_up_do_not_deadlock(on_bench: OnBench) -> None:
    source = """
@pytest.fixture
async def slow():
    # While it is set up, rows in flight look up `late`.
    for _ in range(20):
        await asyncio.sleep(0)
    yield
    for _ in range(20):
        await asyncio.sleep(0)

@pytest.fixture
def late():
    return object()

@foreach("x", [(1,)])
async def eval_it(x, slow, request):
    for _ in range(10):
        await asyncio.sleep(0)
    events.append(request.getfixturevalue("late"))
    return OK
"""

    def body(bench: Bench) -> None:
        reported = bench.assign("eval_it", 60)
        bench.serve()
        assert set(reported.statuses) == {"done"}
        assert len(set(map(id, bench.module.events))) == 60

    on_bench(source, body, concurrency=8)


def test_looking_an_async_fixture_up_on_the_loop_fails_with_advice(on_bench: OnBench) -> None:
    source = """
@pytest.fixture
async def late():
    return 1

@foreach("x", [(1,)])
async def eval_async(x, request):
    request.getfixturevalue("late")
    return OK

@foreach("x", [(1,)])
def eval_sync(x, request):
    assert request.getfixturevalue("late") == 1
    return OK
"""

    def body(bench: Bench) -> None:
        reported, fine = bench.assign("eval_async", 2), bench.assign("eval_sync", 2)
        bench.serve()
        assert reported.statuses == ["failed"] * 2
        assert "name it as a parameter" in str(reported.errors[0])
        assert fine.statuses == ["done"] * 2

    on_bench(source, body)


# Rows.


def test_keyboard_interrupt_on_another_thread_fails_only_the_row(on_bench: OnBench) -> None:
    def body(bench: Bench) -> None:
        reported = [bench.assign(kind, 4) for kind in KINDS]
        with ThreadPoolExecutor(1) as pool:
            pool.submit(bench.serve).result()
        for each in reported:
            assert each.statuses == ["done", "failed", "failed", "done"]
            assert each.ended_by is None

    on_bench(four_kinds('if x == 1: raise KeyboardInterrupt\nif x == 2: pytest.exit("enough")'), body)


def test_system_exit_in_a_task_of_a_row_does_not_stop_the_loop(on_bench: OnBench) -> None:
    source = """
async def leave():
    raise SystemExit(1)

@foreach("x", [(1,)])
async def eval_it(x):
    if x == 3:
        await asyncio.create_task(leave())
    if x == 5:
        asyncio.get_running_loop().stop()
    await asyncio.sleep(0.001)
    return OK
"""

    def body(bench: Bench) -> None:
        reported = bench.assign("eval_it", 20)
        bench.serve()
        assert [index for index, status in enumerate(reported.statuses) if status == "failed"] == [3]
        assert set(reported.statuses) == {"done", "failed"}

    on_bench(source, body, concurrency=4)


def test_system_exit_in_an_async_fixture_fails_the_row(on_bench: OnBench) -> None:
    source = """
@pytest.fixture
async def own():
    events.append(1)
    if len(events) == 2:
        raise SystemExit("no more")

@foreach("x", [(1,)])
async def eval_it(x, own):
    return OK
"""

    def body(bench: Bench) -> None:
        reported = bench.assign("eval_it", 3)
        bench.serve()
        assert reported.statuses == ["done", "failed", "done"]

    on_bench(source, body, concurrency=1)


@pytest.mark.parametrize("kind", ["eval_async", "eval_async_own"])
def test_a_row_that_cancels_its_own_task_fails(on_bench: OnBench, kind: str) -> None:
    source = four_kinds("if x == 1: asyncio.current_task().cancel()\nawait asyncio.sleep(0)", "pass")

    def body(bench: Bench) -> None:
        reported = bench.assign(kind, 3)
        bench.serve()
        assert reported.statuses == ["done", "failed", "done"]
        assert "the row cancelled its own task" in str(reported.errors[1])
        assert reported.ended_by is None

    on_bench(source, body)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_that_takes_too_long_fails_and_the_others_go_on(on_bench: OnBench, kind: str) -> None:
    source = four_kinds(
        "if x == 1: await asyncio.Event().wait()",
        "while x == 1: time.sleep(0.01)",
    )

    def body(bench: Bench) -> None:
        reported = bench.assign(kind, 5)
        bench.serve()
        assert reported.statuses == ["done", "failed", "done", "done", "done"]
        assert "longer than 0.1 s" in str(reported.errors[1])
        assert len(bench.module.made) == len(bench.module.torn)

    on_bench(source, body, policy=CallPolicy(timeout=0.1), concurrency=2)

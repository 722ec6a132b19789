"""Concurrency strategies and retries, set by `@foreach` and by the command line."""

from __future__ import annotations

from tests.plugin.conftest import Evaluate, Records


def test_each_strategy_keeps_its_number_of_rows_in_flight(evaluate: Evaluate) -> None:
    result = evaluate(
        """
import threading, time
from collections import Counter, defaultdict
from doteval import ForEach
from doteval.concurrency import Adaptive, AsyncSequential, Batch, Sequential, SlidingWindow

rows = [(i,) for i in range(24)]
now, peak, lock, began, ended = Counter(), Counter(), threading.Lock(), defaultdict(list), defaultdict(list)
AT_ONCE = {
    "sequential": 1, "async_sequential": 1, "sliding": 3, "sliding_threads": 4, "groups": 6,
    "sync_groups": 1, "number": 5, "default": 10, "default_sync": 1,
}

def enter(name, i):
    with lock:
        began[name].append((i, len(ended[name])))
        now[name] += 1
        peak[name] = max(peak[name], now[name])

def leave(name, i):
    with lock:
        now[name] -= 1
        ended[name].append(i)
    return Score("ok", True, ["accuracy"])

def pauses(name, i):
    # Waits until as many rows are in flight as the strategy allows, and then a little for rows beyond that.
    # Adaptive begins with two and decides itself how to go on.
    size, deadline = AT_ONCE.get(name, 2 if i < 2 else 1), time.monotonic() + 10
    while len(began[name]) < min(len(rows), (i // size + 1) * size) and time.monotonic() < deadline:
        yield 0.001
    yield 0.005

def define(name, foreach, is_async):
    if is_async:
        @foreach("i", rows)
        async def row(i):
            enter(name, i)
            for seconds in pauses(name, i):
                await asyncio.sleep(seconds)
            return leave(name, i)
    else:
        @foreach("i", rows)
        def row(i):
            enter(name, i)
            for seconds in pauses(name, i):
                time.sleep(seconds)
            return leave(name, i)
    return row

eval_sequential = define("sequential", ForEach(concurrency=Sequential()), False)
eval_async_sequential = define("async_sequential", ForEach(concurrency=AsyncSequential()), True)
eval_sliding = define("sliding", ForEach(concurrency=SlidingWindow(max_concurrency=3)), True)
eval_sliding_threads = define("sliding_threads", ForEach(concurrency=SlidingWindow(4)), False)
eval_groups = define("groups", ForEach(concurrency=Batch(batch_size=6)), True)
eval_sync_groups = define("sync_groups", ForEach(concurrency=Batch(batch_size=6)), False)
eval_number = define("number", ForEach(concurrency=5), True)
eval_default = define("default", ForEach(), True)
eval_default_sync = define("default_sync", ForEach(), False)
adaptive = Adaptive(initial_concurrency=2, max_concurrency=4, adaptation_interval=0.0, throughput_window=2)
eval_adaptive = define("adaptive", ForEach(concurrency=adaptive), True)

def test_peaks():
    assert peak == {**AT_ONCE, "adaptive": peak["adaptive"]}
    assert 2 <= peak["adaptive"] <= 4

def test_groups_wait_for_each_other():
    assert sorted(over for _, over in began["groups"]) == [0] * 6 + [6] * 6 + [12] * 6 + [18] * 6
"""
    )
    result.assert_outcomes(passed=12)


def test_the_command_line_sets_the_concurrency_of_evaluations_without_one(evaluate: Evaluate) -> None:
    source = """
from collections import Counter
from doteval.concurrency import Sequential
now, peak = Counter(), Counter()

def define(**settings):
    @foreach("i", [(i,) for i in range(40)], **settings)
    async def row(i, request):
        name = request.node.name
        now[name] += 1
        peak[name] = max(peak[name], now[name])
        await asyncio.sleep(0.005)
        now[name] -= 1
        return Score("ok", True, ["accuracy"])
    return row

eval_plain, eval_own = define(), define(concurrency=Sequential())

def test_peaks():
    print("peaks", peak["eval_plain"], peak["eval_own"])
"""
    evaluate(source, "--concurrent", "17").stdout.fnmatch_lines(["*peaks 17 1"])
    evaluate(source, "--experiment", "auto", "--concurrent").stdout.re_match_lines([r".*peaks ([5-9]|10) 1$"])


def test_connection_errors_are_retried_and_the_row_keeps_the_original_error(
    evaluate: Evaluate, records: Records
) -> None:
    result = evaluate(
        """
from collections import Counter
from tenacity import AsyncRetrying, Retrying, retry_if_exception_type, retry_if_result, stop_after_attempt, wait_none
from doteval import ForEach

calls = Counter()
ok = Score("ok", True, ["accuracy"])

def fail(name, times, error=ConnectionError):
    calls[name] += 1
    if calls[name] <= times:
        raise error(f"{name} attempt {calls[name]}")
    return ok

@foreach("i", [(1,)])
def eval_default(i):
    return fail("default", 2)

@foreach("i", [(1,)])
async def eval_default_async(i):
    return fail("default_async", 99)

@foreach("i", [(1,)], retries=1)
def eval_one(i):
    return fail("one", 99, TimeoutError)

@foreach("i", [(1,)], retries=0)
def eval_none(i):
    return fail("none", 99)

@foreach("i", [(1,)])
def eval_not_a_connection(i):
    return fail("not_a_connection", 99, ValueError)

attempts = {"stop": stop_after_attempt(5), "wait": wait_none()}
sync, both = Retrying(**attempts), AsyncRetrying(**attempts)

@ForEach(retries=sync)("i", [(1,), (2,)])
def eval_tenacity(i):
    return fail(f"tenacity{i}", 4, ValueError)

@ForEach(retries=both)("i", [(i,) for i in range(20)])
async def eval_tenacity_async(i):
    await asyncio.sleep(0)
    return fail(f"tenacity_async{i}", 9, ValueError)

@ForEach(retries=both)("i", [(1,)])
def eval_async_object_for_a_sync_function(i):
    return fail("mixed", 4, ValueError)

@ForEach(retries=sync)("i", [(1,)])
async def eval_sync_object_for_an_async_function(i):
    return fail("mixed2", 4, ValueError)

@batch("i", [(1,), (2,)], retries=sync)
def eval_batch(i):
    return [fail("batch", 2, ValueError)] * 2

def test_counts():
    assert calls.pop("tenacity_async0") == 5 and calls.pop("tenacity_async19") == 5
    assert {name: count for name, count in calls.items() if "async1" not in name and "async" not in name} == {
        "default": 3, "one": 2, "none": 1, "not_a_connection": 1,
        "tenacity1": 5, "tenacity2": 5, "mixed": 5, "mixed2": 5, "batch": 3,
    }
    assert calls["default_async"] == 4
""",
        "--max-retries",
        "3",
        "--retry-delay",
        "0.01",
    )
    result.assert_outcomes(passed=11)

    def outcome(name: str) -> tuple[str, str]:
        stored = records(name)[0].outcome
        return str(stored.status), "" if stored.error is None else f"{stored.error.type}: {stored.error.message}"

    assert outcome("eval_default") == ("done", "")
    assert outcome("eval_default_async") == ("failed", "ConnectionError: default_async attempt 4")
    assert outcome("eval_one") == ("failed", "TimeoutError: one attempt 2")
    assert outcome("eval_tenacity") == ("done", "")
    assert outcome("eval_tenacity_async") == ("failed", "ValueError: tenacity_async0 attempt 5")
    assert outcome("eval_batch") == ("done", "")


def test_invalid_settings_are_errors_at_the_line_of_the_decorator(evaluate: Evaluate) -> None:
    result = evaluate('@foreach("i", [(1,)], concurrency="many")\ndef eval_it(i): ...')
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*concurrency is a str, which is not a concurrency strategy*", "*SlidingWindow(20)*"])
    result = evaluate('@foreach("i", [(1,)], retries=-1)\ndef eval_it(i): ...')
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*retries is -1*", "*tenacity*"])


def test_rows_that_take_too_long_fail_and_the_others_do_not(evaluate: Evaluate, records: Records) -> None:
    result = evaluate(
        """
import time, threading

@pytest.fixture
def own():
    yield
    print("torn down")

@foreach("i", [(0,), (1,), (2,)])
def eval_sync(i, own):
    assert threading.current_thread() is threading.main_thread()
    try:
        time.sleep(30 if i == 1 else 0)
    except Exception:
        pass
    return Score("ok", True, ["accuracy"])

@foreach("i", [(0,), (1,), (2,)], concurrency=3)
def eval_threads(i, own):
    while i == 1:
        time.sleep(0.001)
    return Score("ok", True, ["accuracy"])

@foreach("i", [(0,), (1,), (2,)])
async def eval_async(i, own):
    await asyncio.sleep(30 if i == 1 else 0)
    return Score("ok", True, ["accuracy"])
""",
        "--row-timeout",
        "0.3",
        "--durations=3",
    )
    result.assert_outcomes(passed=3)
    assert result.stdout.str().count("torn down") == 9
    for name in ("eval_sync", "eval_threads", "eval_async"):
        stored = records(name)
        assert [record.outcome.status for record in stored] == ["done", "failed", "done"]
        assert stored[1].outcome.error.type == "RowTimeoutError"
        assert stored[1].outcome.error.error_class == "timeout"
        assert stored[1].outcome.error.message == "the row took longer than 0.3 s"

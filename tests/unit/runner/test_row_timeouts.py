"""Rows that take too long or are cancelled: which error they get, and that no other row is affected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from doteval.core.results import ErrorClass, Outcome, RowStatus
from doteval.runner.calls import CallPolicy, call, call_async
from doteval.runner.timeouts import Expired
from tests.support.eval_calls import NEVER, SCORE, Run, raising


def expect_timeout(outcome: Outcome) -> None:
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "RowTimeoutError"
    assert "longer than 0.1 s" in outcome.error.message
    assert outcome.error.error_class is ErrorClass.TIMEOUT
    assert outcome.seconds >= 0.1


SHORT = CallPolicy(timeout=0.1)


async def forever(**_: Any) -> Any:
    await asyncio.Event().wait()


def awaited(function: Callable[..., Awaitable[Any]], policy: CallPolicy = NEVER) -> Outcome:
    return asyncio.run(call_async(function, {}, policy))


# Timeouts.


def test_an_async_row_that_takes_too_long() -> None:
    outcome = awaited(forever, SHORT)
    expect_timeout(outcome)
    assert outcome.error is not None
    # The traceback shows where it hung.
    assert "asyncio.Event().wait()" in outcome.error.traceback


def test_a_sync_row_that_takes_too_long_on_the_main_thread_and_on_another() -> None:
    def spin() -> Any:
        while True:
            time.sleep(0.01)

    expect_timeout(call(spin, {}, SHORT))
    with ThreadPoolExecutor(1) as pool:
        expect_timeout(pool.submit(call, spin, {}, SHORT).result())
        # Nothing is left that interrupts the next row.
        assert pool.submit(call, lambda: SCORE, {}, SHORT).result().status is RowStatus.DONE


def test_a_task_of_a_sync_row_that_takes_too_long() -> None:
    async def spin() -> None:
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - it hangs

    async def tasks() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(spin())

    # The interruption arrives in an exception group.
    expect_timeout(call(lambda: asyncio.run(tasks()), {}, SHORT))


def test_an_interruption_in_a_group_is_a_row_timeout(run: Run) -> None:
    outcome = run(raising(BaseExceptionGroup("tasks", [Expired()])), CallPolicy(timeout=30))
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("RowTimeoutError", "the row took longer than 30 s")


def test_a_row_in_time_is_not_touched(run: Run) -> None:
    assert run(lambda: SCORE, CallPolicy(timeout=30)).status is RowStatus.DONE


def test_a_timeout_error_that_the_row_raises_is_no_row_timeout(run: Run) -> None:
    outcome = run(raising(TimeoutError("the server's")), CallPolicy(timeout=30))
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("TimeoutError", "the server's")
    assert outcome.error.error_class is ErrorClass.INFRASTRUCTURE


def test_a_timeout_inside_the_row_is_no_row_timeout() -> None:
    async def row() -> Any:
        async with asyncio.timeout(0.01):
            await forever()

    outcome = awaited(row, CallPolicy(timeout=30))
    assert outcome.error is not None
    assert outcome.error.type == "TimeoutError"


def test_a_row_timeout_is_not_retried_and_includes_the_retries(run: Run) -> None:
    function = raising(*(ConnectionError(str(number)) for number in range(1000)))
    expect_timeout(run(function, CallPolicy(retries=1000, delay=0.04, timeout=0.1)))
    assert function.calls < 5  # type: ignore[attr-defined]


# Cancelled rows.


def test_cancelling_the_task_raises_cancelled_error() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(call_async(forever, {}, CallPolicy(retries=3, timeout=30)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancelled_error_from_elsewhere_fails_the_row() -> None:
    async def row() -> Any:
        other = asyncio.ensure_future(forever())
        await asyncio.sleep(0)
        other.cancel()
        await other

    outcome = awaited(row)
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "CancelledError"

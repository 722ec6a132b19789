"""Rows that take too long and rows that are cancelled: whose error it is, and that no other row is hit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from doteval.core.results import ErrorClass, Outcome, RowStatus
from doteval.runner.calls import CallPolicy, call, call_async
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
    # Where it hung.
    assert "asyncio.Event().wait()" in outcome.error.traceback


def test_a_sync_row_that_takes_too_long_on_the_main_thread_and_on_another() -> None:
    def spin() -> Any:
        while True:
            time.sleep(0.01)

    expect_timeout(call(spin, {}, SHORT))
    with ThreadPoolExecutor(1) as pool:
        expect_timeout(pool.submit(call, spin, {}, SHORT).result())
        # Nothing is left that hits the next row.
        assert pool.submit(call, lambda: SCORE, {}, SHORT).result().status is RowStatus.DONE


def test_a_row_in_time_is_not_touched(run: Run) -> None:
    assert run(lambda: SCORE, CallPolicy(timeout=30)).status is RowStatus.DONE


def test_a_timeout_error_of_the_rows_own_is_its_own(run: Run) -> None:
    outcome = run(raising(TimeoutError("the server's")), CallPolicy(timeout=30))
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message) == ("TimeoutError", "the server's")
    assert outcome.error.error_class is ErrorClass.INFRASTRUCTURE


def test_a_deadline_of_the_rows_own_is_its_own() -> None:
    async def row() -> Any:
        async with asyncio.timeout(0.01):
            await forever()

    outcome = awaited(row, CallPolicy(timeout=30))
    assert outcome.error is not None
    assert outcome.error.type == "TimeoutError"


def test_a_row_timeout_is_not_tried_again_and_covers_the_tries(run: Run) -> None:
    function = raising(*(ConnectionError(str(number)) for number in range(1000)))
    expect_timeout(run(function, CallPolicy(retries=1000, delay=0.04, timeout=0.1)))
    assert function.calls < 5  # type: ignore[attr-defined]


# Cancelled rows.


def test_a_task_that_is_cancelled_is_cancelled() -> None:
    async def main() -> None:
        task = asyncio.ensure_future(call_async(forever, {}, CallPolicy(retries=3, timeout=30)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_cancelled_error_from_elsewhere_is_the_rows_failure() -> None:
    async def row() -> Any:
        other = asyncio.ensure_future(forever())
        await asyncio.sleep(0)
        other.cancel()
        await other

    outcome = awaited(row)
    assert outcome.status is RowStatus.FAILED
    assert outcome.error is not None
    assert outcome.error.type == "CancelledError"

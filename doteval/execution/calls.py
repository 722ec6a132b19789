"""Calling an eval function with one row, and turning whatever happens into an outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import tenacity

from doteval.errors import InvalidResultError, RowTimeoutError
from doteval.execution.failures import classify, describe, is_skip, skip_reason
from doteval.metering import Meter, metering
from doteval.results import ErrorClass, Outcome, Result, RowError, RowStatus, Score


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a row is called.

    `retries`: how often a connection error is tried again; `delay`: seconds before the first of
    them, doubled and jittered from there; `timeout`: seconds that a row may take, None for ever.
    """

    retries: int = 0
    delay: float = 1.0
    timeout: float | None = None


# A row may raise these too, but they mean that the whole command shall end.
ENDING = (KeyboardInterrupt, pytest.exit.Exception)


def call(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Outcome:
    """Call a sync eval function. Raises only KeyboardInterrupt and pytest.exit."""
    started_at, start = time.time(), time.perf_counter()
    with metering() as meter:
        try:
            returned = function(**arguments)
        except ENDING:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever a row raises belongs to that row
            if not _is_retried(error, policy):
                return _failed(error, started_at, start, meter)
        else:
            return _finished(returned, started_at, start, meter)
        try:
            for attempt in tenacity.Retrying(**_retry_options(policy, policy.retries)):
                with attempt:
                    returned = function(**arguments)
        except ENDING:
            raise
        except BaseException as error:  # noqa: BLE001
            return _failed(error, started_at, start, meter)
        return _finished(returned, started_at, start, meter)


async def call_async(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Outcome:
    """Call an async eval function. Raises only CancelledError, if its own task is cancelled."""
    started_at, start = time.time(), time.perf_counter()
    with metering() as meter:
        try:
            returned = await _awaited(function, arguments, policy)
        except BaseException as error:
            if _is_cancelled(error):
                raise
            if not _is_retried(error, policy):
                return _failed(error, started_at, start, meter)
        else:
            return _finished(returned, started_at, start, meter)
        try:
            async for attempt in tenacity.AsyncRetrying(**_retry_options(policy, policy.retries)):
                with attempt:
                    returned = await _awaited(function, arguments, policy)
        except BaseException as error:
            if _is_cancelled(error):
                raise
            return _failed(error, started_at, start, meter)
        return _finished(returned, started_at, start, meter)


def failed_before_call(error: BaseException, where: str) -> Outcome:
    """The outcome of a row whose fixtures could not be set up."""
    now = time.perf_counter()
    return _failed(error, time.time(), now, None, prefix=f"{where}: ")


def with_teardown_errors(outcome: Outcome, errors: list[BaseException]) -> Outcome:
    """The same outcome, telling of teardowns that raised. What was computed is kept."""
    if not errors or outcome.error is not None:
        return outcome
    return Outcome(
        outcome.status,
        outcome.started_at,
        outcome.seconds,
        outcome.scores,
        outcome.prompt,
        outcome.model_response,
        outcome.metadata,
        describe(errors[0], prefix="at the teardown of a fixture: "),
        outcome.usage,
    )


async def _awaited(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Any:
    if policy.timeout is None:
        return await function(**arguments)
    deadline = asyncio.timeout(policy.timeout)
    try:
        async with deadline:
            return await function(**arguments)
    except TimeoutError as error:
        # The evaluation's own TimeoutErrors are not ours.
        if not deadline.expired():
            raise
        raise RowTimeoutError(f"the row took longer than {policy.timeout:g} s") from error


def _is_cancelled(error: BaseException) -> bool:
    # CancelledError that a row raised by itself is the row's; only a real cancellation ends the task.
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _is_retried(error: BaseException, policy: CallPolicy) -> bool:
    return policy.retries > 0 and classify(error) is ErrorClass.INFRASTRUCTURE


def _retry_options(policy: CallPolicy, retries: int) -> dict[str, Any]:
    return {
        "stop": tenacity.stop_after_attempt(retries),
        "wait": tenacity.wait_exponential_jitter(initial=policy.delay, max=60.0),
        "retry": tenacity.retry_if_exception(lambda error: classify(error) is ErrorClass.INFRASTRUCTURE),
        # The row keeps the original error, not tenacity's.
        "reraise": True,
    }


def _failed(error: BaseException, started_at: float, start: float, meter: Meter | None, *, prefix: str = "") -> Outcome:
    skipped = is_skip(error)
    return Outcome(
        status=RowStatus.SKIPPED if skipped else RowStatus.FAILED,
        started_at=started_at,
        seconds=time.perf_counter() - start,
        error=skip_reason(error) if skipped else describe(error, prefix=prefix),
        usage=meter.reading() if meter is not None else (),
    )


def _finished(returned: Any, started_at: float, start: float, meter: Meter) -> Outcome:
    seconds = time.perf_counter() - start
    if isinstance(returned, Result):
        if returned.error is not None:
            error = RowError(type="Result.error", message=str(returned.error))
            status = RowStatus.FAILED
        else:
            error, status = None, RowStatus.DONE
        return Outcome(
            status,
            started_at,
            seconds,
            returned.scores,
            returned.prompt,
            returned.model_response,
            returned.metadata,
            error,
            meter.reading(),
        )
    if isinstance(returned, Score):
        return Outcome(RowStatus.DONE, started_at, seconds, (returned,), usage=meter.reading())
    invalid = InvalidResultError(
        f"the eval function returned {type(returned).__name__}, not a Result or a Score",
        remedy="Return Result(score, prompt=...), or the score of an evaluator.",
    )
    return _failed(invalid, started_at, start, meter)

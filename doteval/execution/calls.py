"""Calling an eval function with one row, and turning whatever happens into an outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tenacity

from doteval.errors import InvalidResultError, RowTimeoutError
from doteval.execution.failures import classify, describe, ends_command, is_skip, skip_reason
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


def call(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Outcome:
    """Call a sync eval function. Raises only, on the main thread, KeyboardInterrupt and pytest.exit."""
    started_at, start = time.time(), time.perf_counter()
    with metering() as meter:
        try:
            returned = function(**arguments)
        except BaseException as error:
            if ends_command(error):
                raise
            if not _is_retried(error, policy):
                return _failed(error, started_at, start, meter)
            first = error
        else:
            return _finished(returned, started_at, start, meter)
        try:
            for attempt in tenacity.Retrying(**_retry_options(policy)):
                with attempt:
                    if attempt.retry_state.attempt_number == 1:
                        raise first
                    returned = function(**arguments)
        except BaseException as error:
            if ends_command(error):
                raise
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
            first = error
        else:
            return _finished(returned, started_at, start, meter)
        try:
            async for attempt in tenacity.AsyncRetrying(**_retry_options(policy)):
                with attempt:
                    if attempt.retry_state.attempt_number == 1:
                        raise first
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
    if not errors:
        return outcome
    error = describe(errors[0], prefix="at the teardown of a fixture: ")
    if outcome.error is not None:
        error = replace(outcome.error, message=f"{outcome.error.message}\n{error.type} {error.message}")
    return replace(outcome, error=error)


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


def _retry_options(policy: CallPolicy) -> dict[str, Any]:
    # The first attempt is the call that has failed already: made without tenacity, which would cost
    # every row more than its set-up does.
    return {
        "stop": tenacity.stop_after_attempt(1 + policy.retries),
        "wait": tenacity.wait_exponential_jitter(initial=policy.delay, max=60.0, jitter=policy.delay),
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

"""Times a call, ends it at its timeout, and retries connection errors with back-off."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tenacity
from tenacity.asyncio.retry import async_retry_base
from tenacity.stop import stop_base

from doteval.core import clocks
from doteval.core.fast_dataclass import row_value
from doteval.core.metering import current_meter, metering
from doteval.core.results import Usage
from doteval.core.run_config import RunConfig
from doteval.errors import UsageError
from doteval.runner.cached_replies import prepare_another_try, with_checked_replies
from doteval.runner.error_classes import ends_command, may_be_tried_again
from doteval.runner.timeouts import is_expiry, timed_out, within

_LONGEST_PAUSE = 60.0


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """How a row is called.

    `retries`: how often a connection error is retried. `delay`: seconds before the first retry, doubled and
    jittered from there. `timeout`: seconds that a row may take, with its retries; None is no limit. `retrying`: a
    tenacity object that replaces `retries` and `delay`.
    """

    retries: int = 0
    delay: float = RunConfig().retry_delay
    timeout: float | None = None
    retrying: Any = field(default=None, repr=False)

    @classmethod
    def from_config(cls, config: RunConfig) -> CallPolicy:
        """The policy that a run's configuration asks for."""
        # In batch mode, requests that fail come into another batch.
        return cls(0 if config.batch else config.max_retries, config.retry_delay, config.row_timeout)

    def with_retries(self, own: object) -> CallPolicy:
        """The policy of an evaluation whose decorator sets `retries` to `own`, None if it does not.

        Raises UsageError if `own` is neither a number nor a tenacity object.

        >>> CallPolicy(retries=3).with_retries(0).retries
        0
        """
        if own is None:
            return self
        if isinstance(own, tenacity.BaseRetrying):
            return replace(self, retrying=own)
        if isinstance(own, int) and not isinstance(own, bool) and own >= 0:
            return replace(self, retries=own)
        raise UsageError(
            f"retries is {own!r}" if isinstance(own, int | float) else f"retries is a {type(own).__name__}",
            remedy="Give the number of retries, or tenacity's Retrying(...) or AsyncRetrying(...).",
        )


@row_value
class Performed:
    """What a call returned or raised, and when: `started_at` in epoch seconds, `seconds` with its retries."""

    started_at: float
    seconds: float
    returned: Any = None
    error: BaseException | None = None
    usage: tuple[Usage, ...] = ()


def perform(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Performed:
    """Call a sync function. Raises only KeyboardInterrupt and pytest.exit, on the main thread."""
    started_at, start = clocks.now(), clocks.perf_counter()
    returned, raised = None, None
    with metering() as meter:
        try:
            if policy.timeout is None and policy.retrying is None:
                # The usual case, with as little as possible around the call.
                returned = _first_call(function, arguments, policy)
            else:
                returned = within(policy.timeout, functools.partial(_tried, function, arguments, policy))
        except BaseException as error:
            if ends_command(error):
                raise
            raised = error
    return Performed(started_at, clocks.perf_counter() - start, returned, raised, meter.reading())


async def perform_async(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Performed:
    """Call an async function. Raises only CancelledError, if the task that runs it is cancelled."""
    started_at, start = clocks.now(), clocks.perf_counter()
    returned, raised = None, None
    with metering() as meter:
        try:
            returned = await _within_async(function, arguments, policy)
        except BaseException as error:
            if _is_cancelled(error):
                raise
            raised = error
    return Performed(started_at, clocks.perf_counter() - start, returned, raised, meter.reading())


def _tried(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Any:
    if policy.retrying is not None:
        return _sync_retrying(policy.retrying)(functools.partial(_attempt, function, arguments))
    return _first_call(function, arguments, policy)


def _first_call(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Any:
    try:
        return _attempt(function, arguments)
    except Exception as error:
        if not _is_retried(error, policy):
            raise
        failed = [error]

    def again() -> Any:
        if failed:
            raise failed.pop()
        return _attempt(function, arguments)

    return tenacity.Retrying(**_retry_options(policy))(again)


def _attempt(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return with_checked_replies(function(**arguments))
    except Exception as error:
        prepare_another_try(error)
        raise


async def _within_async(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Any:
    if policy.timeout is None:
        return await _tried_async(function, arguments, policy)
    deadline = asyncio.timeout(policy.timeout)
    try:
        async with deadline:
            return await _tried_async(function, arguments, policy)
    except TimeoutError as error:
        # A TimeoutError that the evaluation raises itself is not the row's timeout.
        if not deadline.expired():
            raise
        raise timed_out(policy.timeout) from error
    except BaseException as error:
        if not is_expiry(error):
            raise
        # It never awaited, and the loop watchdog has interrupted it.
        raise timed_out(policy.timeout) from error.__context__


async def _tried_async(function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy) -> Any:
    if policy.retrying is not None:
        return await _async_retrying(policy.retrying)(_attempt_async, function, arguments)
    try:
        return await _attempt_async(function, arguments)
    except Exception as error:
        if not _is_retried(error, policy):
            raise
        failed = [error]

    async def again() -> Any:
        if failed:
            raise failed.pop()
        return await _attempt_async(function, arguments)

    return await tenacity.AsyncRetrying(**_retry_options(policy))(again)


async def _attempt_async(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    try:
        return with_checked_replies(await function(**arguments))
    except Exception as error:
        prepare_another_try(error)
        raise


def _is_cancelled(error: BaseException) -> bool:
    # A row may raise CancelledError itself; only a real cancellation ends the task.
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _is_retried(error: BaseException, policy: CallPolicy) -> bool:
    return policy.retries > 0 and may_be_tried_again(error) and not _is_parked()


def _is_parked() -> bool:
    """Whether the row waits for the reply of a batch: what its function has raised is no failure then."""
    meter = current_meter()
    parking = None if meter is None or meter.calls is None else meter.calls.parking
    return parking is not None and parking.parked


class _StopIfParked(stop_base):
    def __call__(self, _: tenacity.RetryCallState) -> bool:
        return _is_parked()


_STOP_IF_PARKED = _StopIfParked()


def _or_if_parked(stop: Any) -> Any:
    return tenacity.stop_any(stop, _STOP_IF_PARKED)


def _retry_options(policy: CallPolicy) -> dict[str, Any]:
    # The first attempt is the call that has failed already. It was made without tenacity, which would cost every row
    # more than its set-up does.
    return {
        "stop": _or_if_parked(tenacity.stop_after_attempt(1 + policy.retries)),
        "wait": tenacity.wait_exponential(multiplier=policy.delay, max=_LONGEST_PAUSE)
        + tenacity.wait_random(0, policy.delay),
        "retry": tenacity.retry_if_exception(may_be_tried_again),
        # The row's error is the original one, not tenacity's RetryError.
        "reraise": True,
    }


# tenacity counts on the object, by thread, so rows that overlap need an object each.


def _sync_retrying(given: tenacity.BaseRetrying) -> tenacity.BaseRetrying:
    if not isinstance(given, tenacity.AsyncRetrying):
        return given.copy(reraise=True, stop=_or_if_parked(given.stop))
    if any(isinstance(part, async_retry_base) for part in (given.retry, given.stop, given.wait)):
        raise UsageError(
            "retries is asynchronous, and the evaluation is not",
            remedy="Use the conditions of tenacity, not those of tenacity.asyncio.",
        )
    return tenacity.Retrying(**_settings(given))


def _async_retrying(given: tenacity.BaseRetrying) -> tenacity.BaseRetrying:
    if isinstance(given, tenacity.AsyncRetrying):
        if asyncio.iscoroutinefunction(given.stop):
            return given.copy(reraise=True)
        return given.copy(reraise=True, stop=_or_if_parked(given.stop))
    return tenacity.AsyncRetrying(**_settings(given))


def _settings(given: tenacity.BaseRetrying) -> dict[str, Any]:
    """What a tenacity object says of when to retry; not how it sleeps, which differs between sync and async."""
    names = ("stop", "wait", "retry", "before", "after", "before_sleep", "retry_error_cls", "retry_error_callback")
    stop = _or_if_parked(given.stop)
    return {**{name: getattr(given, name) for name in names}, "reraise": True, "stop": stop}

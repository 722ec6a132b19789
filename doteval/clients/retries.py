"""Trying again: connection errors, timeouts, 408, 409, 429 and 5xx, with jittered back-off.

The last reply or error is the caller's, as it came. What was asked for ends after so many attempts and
so many seconds. A server that says when to come back is obeyed; one that says not to (``x-should-retry``,
or a quota that is used up) is too.
"""

from __future__ import annotations

from dataclasses import dataclass

import tenacity

from doteval.clients.rate_limits.headers import retry_after
from doteval.clients.steps import Exchange, Response, Step
from doteval.clients.usage_recording import Ledger
from doteval.core.results import Usage

_STATUSES = frozenset({408, 409, 429})
# A server may ask for more patience than anyone has.
_LONGEST_PAUSE = 120.0
RETRY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long to try again.

    `retries`: tries after the first; `seconds`: no further try begins this long after the first one
    began; `first_pause` and `longest_pause`: seconds, doubled from try to try and jittered.
    """

    retries: int = 6
    seconds: float = RETRY_SECONDS
    first_pause: float = 0.5
    longest_pause: float = 20.0


def retried(step: Step, policy: RetryPolicy, ledger: Ledger, *, transport_errors: tuple[type[Exception], ...]) -> Step:
    """The step that tries again. `transport_errors` is what the HTTP client raises when there is no reply.

    Pauses after a 429 count as waiting for limits.
    """
    if policy.retries <= 0:
        return step

    def is_worth_it(state: tenacity.RetryCallState) -> bool:
        outcome = state.outcome
        assert outcome is not None
        if outcome.failed:
            return isinstance(outcome.exception(), transport_errors)
        return _is_worth_it(outcome.result())

    def wait(state: tenacity.RetryCallState) -> float:
        outcome = state.outcome
        assert outcome is not None
        asked = None if outcome.failed else retry_after(outcome.result().headers)
        if asked is None:
            return backoff(state)
        # With a little jitter, so that those who were rejected together do not return together.
        return min(_LONGEST_PAUSE, asked) + jitter(state)

    backoff = tenacity.wait_random_exponential(multiplier=policy.first_pause * 2, max=policy.longest_pause)
    jitter = tenacity.wait_random(0, 0.05)
    stop = tenacity.stop_any(
        tenacity.stop_after_attempt(1 + policy.retries), tenacity.stop_before_delay(policy.seconds)
    )

    async def retry(exchange: Exchange) -> Response:
        # The first attempt is made without tenacity, which costs more than all our other steps.
        response: Response = None
        error: Exception | None = None
        try:
            response = await step(exchange)
        except transport_errors as raised:
            error = raised
        if error is None and not _is_worth_it(response):
            return response
        if not _can_be_sent_again(exchange):
            if error is not None:
                raise error
            return response

        async def again() -> Response:
            nonlocal error, response
            if error is not None:
                first, error = error, None
                raise first
            if response is not None:
                first_response, response = response, None
                return first_response
            exchange.attempt += 1
            return await step(exchange)

        async def before_sleep(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            if state.outcome.failed:
                return
            response = state.outcome.result()
            if response.status_code == 429 and state.next_action is not None:
                ledger.add(Usage(exchange.model, waited=state.next_action.sleep), exchange.meter)
            await exchange.io.close(response)

        retrying = tenacity.AsyncRetrying(
            sleep=exchange.io.pause,
            stop=stop,
            wait=wait,
            retry=is_worth_it,
            before_sleep=before_sleep,
            # The caller gets the last reply or error itself, not tenacity's.
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        return await retrying(again)

    return retry


def _is_worth_it(response: Response) -> bool:
    status = response.status_code
    if status < 400:
        return False
    said = response.headers.get("x-should-retry")
    if said in ("true", "false"):
        return bool(said == "true")
    return (status in _STATUSES or status >= 500) and not _is_used_up(response)


def _is_used_up(response: Response) -> bool:
    """Whether a 429 means that no money is left."""
    return response.status_code == 429 and response.is_closed and b"insufficient_quota" in response.content


def _can_be_sent_again(exchange: Exchange) -> bool:
    """Whether the body is still there: a file that was streamed is not."""
    try:
        exchange.request.content  # noqa: B018 - asking is the test
    except RuntimeError:
        return False
    return True

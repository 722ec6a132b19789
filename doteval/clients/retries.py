"""Repeats requests that failed: connection errors, timeouts, 408, 409, 429 and 5xx, with jittered back-off.

The caller gets the last reply or error unchanged. Tries are limited in number and in time. A server that says when to
come back is obeyed, and so is one that says not to come back (``x-should-retry``, or a quota that is used up).

Retries do not multiply: a request that was tried to the end is marked, so that its row is not tried again for it, and a
request that the SDK repeats (``with_options(max_retries=...)``) is sent once each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import tenacity

from doteval.clients.rate_limits.headers import retry_after
from doteval.clients.steps import ApiCall, Response, Step
from doteval.clients.usage_recording import UsageTotals
from doteval.core.results import Usage

_STATUSES = frozenset({408, 409, 429})
# A server may ask for hours, which would hold up the row and its slot.
_LONGEST_PAUSE_SECONDS = 120.0
RETRY_SECONDS = 300.0

SDK_RETRIES_HEADER = "x-stainless-retry-count"
"""How often the SDK has repeated a request. The SDKs of OpenAI and Anthropic send it."""

TRIED_HEADER = "x-doteval-tries"
"""Set on a request that is not tried again, after its last try: how often it was sent. It is not sent itself."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a request is tried again.

    `retries`: tries after the first; `seconds`: no further try begins this long after the first one began;
    `first_pause` and `longest_pause`: seconds, doubled from try to try and jittered.
    """

    retries: int = 6
    seconds: float = RETRY_SECONDS
    first_pause: float = 0.5
    longest_pause: float = 20.0


def retry_step(
    step: Step, policy: RetryPolicy, totals: UsageTotals, *, transport_errors: tuple[type[Exception], ...]
) -> Step:
    """A step around `step` that tries again. `transport_errors`: what the HTTP client raises if there is no reply.

    Pauses after a 429 are recorded as time waited for rate limits.
    """
    if policy.retries <= 0:
        return step

    def is_retried(state: tenacity.RetryCallState) -> bool:
        outcome = state.outcome
        assert outcome is not None
        if outcome.failed:
            return isinstance(outcome.exception(), transport_errors)
        return _is_retried(outcome.result())

    def wait(state: tenacity.RetryCallState) -> float:
        outcome = state.outcome
        assert outcome is not None
        asked = None if outcome.failed else retry_after(outcome.result().headers)
        if asked is None:
            return backoff(state)
        # Jittered, so that requests that were rejected together do not return together.
        return min(_LONGEST_PAUSE_SECONDS, asked) + jitter(state)

    backoff = tenacity.wait_random_exponential(multiplier=policy.first_pause * 2, max=policy.longest_pause)
    jitter = tenacity.wait_random(0, 0.05)
    stop = tenacity.stop_any(
        tenacity.stop_after_attempt(1 + policy.retries), tenacity.stop_before_delay(policy.seconds)
    )

    async def retry(call: ApiCall) -> Response:
        if call.request.headers.get(SDK_RETRIES_HEADER, "0") != "0":
            return await step(call)
        # The first try runs without tenacity, which costs more than all other steps together.
        response: Response = None
        error: Exception | None = None
        try:
            response = await step(call)
        except transport_errors as raised:
            error = raised
        if error is None and not _is_retried(response):
            if _is_temporary(response.status_code):
                call.request.headers[TRIED_HEADER] = "1"
            return response
        if not _can_be_sent_again(call):
            if error is not None:
                raise error
            return response

        async def next_try() -> Response:
            nonlocal error, response
            if error is not None:
                first, error = error, None
                raise first
            if response is not None:
                first_response, response = response, None
                return first_response
            call.try_number += 1
            return await step(call)

        async def before_sleep(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            if state.outcome.failed:
                return
            response = state.outcome.result()
            if response.status_code == 429 and state.next_action is not None:
                totals.add(Usage(call.model, waited=state.next_action.sleep, judge=call.judge), call.meter)
            await call.io.close(response)

        def give_up(state: tenacity.RetryCallState) -> Response:
            # The caller gets the last reply or error itself, not tenacity's RetryError.
            assert state.outcome is not None
            call.request.headers[TRIED_HEADER] = str(call.try_number)
            return state.outcome.result()

        retrying = tenacity.AsyncRetrying(
            sleep=call.io.pause,
            stop=stop,
            wait=wait,
            retry=is_retried,
            before_sleep=before_sleep,
            retry_error_callback=give_up,
        )
        return await retrying(next_try)

    return retry


def _is_retried(response: Response) -> bool:
    status = response.status_code
    if status < 400:
        return False
    advice = response.headers.get("x-should-retry")
    if advice in ("true", "false"):
        return bool(advice == "true")
    return _is_temporary(status) and not _is_quota_used_up(response)


def _is_temporary(status: int) -> bool:
    return status in _STATUSES or status >= 500


def _is_quota_used_up(response: Response) -> bool:
    """Whether a 429 means that the account has no money left."""
    return response.status_code == 429 and response.is_closed and b"insufficient_quota" in response.content


def _can_be_sent_again(call: ApiCall) -> bool:
    """Whether the body is still there: that of a streamed upload is not."""
    try:
        call.request.content  # noqa: B018 - reading it is the test
    except RuntimeError:
        return False
    return True

"""The request step that waits until the rate limit lets a request go."""

from __future__ import annotations

from dataclasses import replace

from doteval.clients.bad_replies import is_event_stream
from doteval.clients.rate_limits.headers import requests_left, retry_after, tokens_left
from doteval.clients.rate_limits.limiter import LimitTarget, Permit, RateLimiter, RequestOutcome, UserLimits
from doteval.clients.steps import ApiCall, Response, Step
from doteval.clients.streams import StreamObserver
from doteval.clients.usage_recording import UsageTotals
from doteval.core import clocks
from doteval.core.results import Usage

# A usual estimate for English text, used until replies report how many tokens requests take.
_BYTES_PER_TOKEN = 4


def rate_limit_step(step: Step, limiter: RateLimiter, limits: UserLimits, totals: UsageTotals) -> Step:
    """A step around `step` that holds a request back until the rate limit of its (base URL, model) allows it."""

    async def wait_for_permit(call: ApiCall) -> Response:
        if "model" not in call.body:
            return await step(call)
        target = limiter.target(_key(call), limits)
        permit = await _permit(limiter, target, call, totals)
        try:
            response = await step(call)
        except BaseException:
            limiter.finish(permit, RequestOutcome(0))
            raise
        headers = response.headers
        outcome = RequestOutcome(
            response.status_code,
            retry_after(headers) if response.status_code == 429 else None,
            requests_left(headers),
            tokens_left(headers),
            call.tokens,
        )
        if call.streamed and not response.is_closed:
            limiter.reply_started(permit, outcome)
            observer = _StreamedReply(limiter, permit, outcome, call)
            call.io.observe(response, observer, events=is_event_stream(call, response))
        else:
            limiter.finish(permit, outcome)
        return response

    return wait_for_permit


class _StreamedReply(StreamObserver):
    """Holds the permit of a request until its reply has been read, or will not be read any further."""

    def __init__(self, limiter: RateLimiter, permit: Permit, outcome: RequestOutcome, call: ApiCall) -> None:
        self._limiter = limiter
        self._permit = permit
        self._outcome = outcome
        self._call = call

    def on_end(self) -> None:
        self._limiter.finish(self._permit, self._with_tokens(), reply_started=True)

    def on_error(self) -> None:
        outcome = replace(self._with_tokens(), status=self._call.error_status)
        self._limiter.finish(self._permit, outcome, reply_started=True)

    def on_abandoned(self) -> None:
        self._limiter.finish_without_lock(self._permit, self._with_tokens())

    def _with_tokens(self) -> RequestOutcome:
        return replace(self._outcome, tokens=self._call.tokens)


async def _permit(limiter: RateLimiter, target: LimitTarget, call: ApiCall, totals: UsageTotals) -> Permit:
    permit = limiter.request_permit(target, call.evaluation, _estimated_tokens(call, target))
    if isinstance(permit, Permit):
        return permit
    since = clocks.perf_counter()
    try:
        return await call.io.wait(permit)
    except BaseException:
        limiter.cancel(permit)
        raise
    finally:
        totals.add(Usage(call.model, waited=clocks.perf_counter() - since, judge=call.judge), call.meter)


def _key(call: ApiCall) -> str:
    """The base URL without user name and password, and the model."""
    url = call.request.url
    return f"{url.scheme}://{url.host}:{url.port or ''} {call.model}"


def _estimated_tokens(call: ApiCall, target: LimitTarget) -> float:
    if target.mean_tokens is not None:
        return target.mean_tokens
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    most = next((call.body[name] for name in names if name in call.body), None)
    return len(call.request.content) / _BYTES_PER_TOKEN + (most if isinstance(most, int) else 0)

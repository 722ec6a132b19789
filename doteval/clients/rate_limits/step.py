"""Limits: the step that waits until a request may be sent."""

from __future__ import annotations

import time
from dataclasses import replace

from doteval.clients.rate_limits.headers import requests_left, retry_after, tokens_left
from doteval.clients.rate_limits.limiter import Limiter, Limits, Line, Permit, Reply
from doteval.clients.steps import Exchange, Response, Step
from doteval.clients.usage_recording import Ledger
from doteval.core.results import Usage

# A usual guess for English text; what replies say takes its place.
_BYTES_PER_TOKEN = 4


def limited(step: Step, limiter: Limiter, limits: Limits, ledger: Ledger) -> Step:
    """The step that sends a request when the budget of its (base URL, model) has room for it."""

    async def wait_for_budget(exchange: Exchange) -> Response:
        if "model" not in exchange.body:
            return await step(exchange)
        line = limiter.line(_key(exchange), limits)
        permit = await _enter(limiter, line, exchange, ledger)
        try:
            response = await step(exchange)
        except BaseException:
            limiter.leave(permit, Reply(0))
            raise
        headers = response.headers
        reply = Reply(
            response.status_code,
            retry_after(headers) if response.status_code == 429 else None,
            requests_left(headers),
            tokens_left(headers),
            exchange.tokens,
        )
        if exchange.streamed and response.status_code < 400:
            limiter.hear(permit, reply)
            exchange.io.watch(response, _Streamed(limiter, permit, reply, exchange))
        else:
            limiter.leave(permit, reply)
        return response

    return wait_for_budget


class _Streamed:
    """Keeps the permit of a request until its reply has been read, or will not be read any further."""

    def __init__(self, limiter: Limiter, permit: Permit, reply: Reply, exchange: Exchange) -> None:
        self._limiter = limiter
        self._permit = permit
        self._reply = reply
        self._exchange = exchange

    def feed(self, chunk: bytes) -> None:
        """Its tokens are counted elsewhere."""

    def ended(self) -> None:
        self._limiter.leave(self._permit, self._read(), heard=True)

    def broke(self) -> None:
        self._limiter.leave(self._permit, replace(self._read(), status=0), heard=True)

    def left(self) -> None:
        self._limiter.leave_unseen(self._permit, self._read())

    def _read(self) -> Reply:
        return replace(self._reply, tokens=self._exchange.tokens)


async def _enter(limiter: Limiter, line: Line, exchange: Exchange, ledger: Ledger) -> Permit:
    entry = limiter.enter(line, exchange.evaluation, _estimate(exchange, line))
    if isinstance(entry, Permit):
        return entry
    since = time.perf_counter()
    try:
        return await exchange.io.wait(entry)
    except BaseException:
        limiter.abandon(entry)
        raise
    finally:
        ledger.add(Usage(exchange.model, waited=time.perf_counter() - since), exchange.meter)


def _key(exchange: Exchange) -> str:
    """The base URL and the model. Without the user information that a URL may hold."""
    url = exchange.request.url
    return f"{url.scheme}://{url.host}:{url.port or ''} {exchange.model}"


def _estimate(exchange: Exchange, line: Line) -> float:
    if line.mean_tokens is not None:
        return line.mean_tokens
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    most = next((exchange.body[name] for name in names if name in exchange.body), None)
    return len(exchange.request.content) / _BYTES_PER_TOKEN + (most if isinstance(most, int) else 0)

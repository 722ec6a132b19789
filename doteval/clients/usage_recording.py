"""Usage recorded where requests leave: a step that sees every attempt, with the retries of the SDK too.

Tokens are what the server's replies say in their ``usage``: chat completions, responses and
embeddings, whole or streamed. A streamed chat completion says it only if it was asked for with
``stream_options={"include_usage": True}``.

Of requests and replies only the model, the status and the token counts are read. Headers, where the
keys are, are never kept.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import fields
from typing import Any

import orjson

from doteval.clients.steps import Exchange, Response, Step
from doteval.core.histogram import NO_LATENCY, Latency
from doteval.core.metering import Meter
from doteval.core.prices import PriceTable
from doteval.core.results import Usage

_COUNTS = tuple(field.name for field in fields(Usage) if field.name not in ("model", "cost", "latency"))


class Ledger:
    """The totals of one HTTP client, by model. Safe to use from threads."""

    def __init__(self) -> None:
        self._totals = Meter()
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()

    def add(self, usage: Usage, meter: Meter | None) -> None:
        self._totals.add(usage)
        if meter is not None:
            meter.add(usage)

    def add_error(self, model: str) -> None:
        with self._lock:
            self._errors[model] += 1

    def stats(self) -> dict[str, Any]:
        """Counts over all models, and the same by model under ``models``.

        ``requests`` (calls of the SDK's methods), ``attempts`` (with its retries), ``errors``
        (attempts without a usable reply), tokens by kind, ``seconds`` spent on attempts and ``waited``
        for limits; ``cost`` in US dollars, if the models have prices.
        """
        with self._lock:
            errors = dict(self._errors)
        models: dict[str, dict[str, Any]] = {}
        for usage in self._totals.reading():
            models[usage.model] = {"errors": errors.get(usage.model, 0)}
            models[usage.model] |= {name: getattr(usage, name) for name in _COUNTS}
            if usage.cost is not None:
                models[usage.model]["cost"] = usage.cost
        names = ("errors", *_COUNTS)
        totals: dict[str, Any] = {name: sum(counts[name] for counts in models.values()) for name in names}
        costs = [counts["cost"] for counts in models.values() if "cost" in counts]
        if costs:
            totals["cost"] = sum(costs)
        return {**totals, "models": models}


def recorded(step: Step, ledger: Ledger, prices: PriceTable) -> Step:
    """The step that records every attempt. It belongs innermost, right around the one that sends."""

    async def record(exchange: Exchange) -> Response:
        attempt = _Attempt(exchange, ledger, prices)
        try:
            response = await step(exchange)
        except BaseException:
            attempt.failed()
            raise
        reader = attempt.replied(response, streamed=exchange.streamed)
        if reader is not None:
            exchange.tokens = None
            exchange.io.watch(response, reader)
        else:
            exchange.tokens = attempt.tokens_told
        return response

    return record


class _Attempt:
    """One request on its way, and the meter of the row that sent it."""

    def __init__(self, exchange: Exchange, ledger: Ledger, prices: PriceTable) -> None:
        self._exchange = exchange
        self._ledger = ledger
        self._prices = prices
        self._meter = exchange.meter
        self._model = exchange.model
        # The SDK numbers its attempts, we ours; what nobody numbered stands for itself.
        numbered = exchange.request.headers.get("x-stainless-retry-count", "0")
        self._is_first = numbered == "0" and exchange.attempt == 1
        self._told = Usage(self._model)
        self._began = self._since = time.perf_counter()

    @property
    def tokens_told(self) -> int:
        """The tokens of the reply, as far as it said."""
        return self._told.prompt_tokens + self._told.completion_tokens

    def failed(self) -> None:
        """It ended without a usable reply."""
        self._ledger.add_error(self._model)
        self._add(self._counted())

    def replied(self, response: Response, *, streamed: bool) -> _EventReader | _WholeReader | None:
        """A reply has begun. Gives a watcher for its body if that is still to come."""
        if response.status_code >= 400:
            self.failed()
            return None
        kind = response.headers.get("content-type", "")
        if streamed:
            self._add(self._counted())
            if kind.startswith("text/event-stream"):
                return _EventReader(self)
            return _WholeReader(self) if kind.startswith("application/json") else None
        if not kind.startswith("application/json"):
            self._add(self._counted(), latency=self._latency())
            return None
        try:
            usage = _usage_in(orjson.loads(response.content))
        except orjson.JSONDecodeError:
            # The SDK tells the caller.
            self.failed()
            return None
        self._add(self._counted(), usage, latency=self._latency())
        return None

    def broken(self) -> None:
        """The body broke off after the reply had begun."""
        self._ledger.add_error(self._model)

    def read(self, usage: dict[str, Any]) -> None:
        """A streamed body told its usage: its own, or what it comes to so far."""
        self._add(Usage(self._model), usage)
        self._exchange.tokens = self.tokens_told

    def complete(self) -> None:
        """A streamed body was read to its end."""
        self._add(Usage(self._model), latency=self._latency())

    def _counted(self) -> Usage:
        return Usage(self._model, requests=int(self._is_first), attempts=1)

    def _latency(self) -> Latency:
        return Latency.of(time.perf_counter() - self._began)

    def _add(self, counted: Usage, told: dict[str, Any] | None = None, latency: Latency = NO_LATENCY) -> None:
        now = time.perf_counter()
        tokens = self._told if told is None else self._tokens(told)
        self._ledger.add(
            Usage(
                self._model,
                counted.requests,
                counted.attempts,
                # Some servers tell a running total with every event.
                prompt_tokens=tokens.prompt_tokens - self._told.prompt_tokens,
                completion_tokens=tokens.completion_tokens - self._told.completion_tokens,
                cached_tokens=tokens.cached_tokens - self._told.cached_tokens,
                reasoning_tokens=tokens.reasoning_tokens - self._told.reasoning_tokens,
                cost=None if told is None or tokens.cost is None else tokens.cost - (self._told.cost or 0.0),
                seconds=now - self._since,
                latency=latency,
            ),
            self._meter,
        )
        self._told, self._since = tokens, now

    def _tokens(self, told: dict[str, Any]) -> Usage:
        counts = _tokens(told)
        cost = self._prices.cost(
            self._model,
            prompt_tokens=counts["prompt_tokens"],
            completion_tokens=counts["completion_tokens"],
            cached_tokens=counts["cached_tokens"],
        )
        return Usage(
            self._model,
            prompt_tokens=counts["prompt_tokens"],
            completion_tokens=counts["completion_tokens"],
            cached_tokens=counts["cached_tokens"],
            reasoning_tokens=counts["reasoning_tokens"],
            cost=cost,
        )


class _EventReader:
    """Finds usage in server-sent events, however the bytes are cut."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            # Only few events speak of usage, and in the text of a reply its quotes are escaped.
            if line.startswith(b"data:") and b'"usage"' in line:
                usage = _usage_in(_loaded(line[5:]))
                if usage is not None:
                    self._attempt.read(usage)

    def ended(self) -> None:
        self.feed(b"\n")
        self._attempt.complete()

    def broke(self) -> None:
        self._attempt.broken()

    def left(self) -> None:
        """What was told so far is counted."""


class _WholeReader:
    """Finds usage in a JSON reply that is read in pieces."""

    def __init__(self, attempt: _Attempt) -> None:
        self._attempt = attempt
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def ended(self) -> None:
        usage = _usage_in(_loaded(b"".join(self._chunks)))
        if usage is not None:
            self._attempt.read(usage)
        self._attempt.complete()

    def broke(self) -> None:
        self._attempt.broken()

    def left(self) -> None:
        """Its usage is at the end, so that it is not known."""


def _loaded(data: bytes) -> Any:
    """The JSON value, None if it is none: whoever uses the data says so."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def _usage_in(body: Any) -> dict[str, Any] | None:
    """The usage of a reply or an event; events of the Responses API have it in the response inside."""
    if not isinstance(body, dict):
        return None
    usage = body.get("usage")
    if usage is None and isinstance(body.get("response"), dict):
        usage = body["response"].get("usage")
    return usage if isinstance(usage, dict) else None


def _tokens(usage: dict[str, Any]) -> dict[str, int]:
    """Token counts under the names of chat completions and embeddings, or of the Responses API."""
    prompt = "input" if "input_tokens" in usage else "prompt"
    completion = "output" if "output_tokens" in usage else "completion"
    return {
        "prompt_tokens": _count(usage, f"{prompt}_tokens"),
        "completion_tokens": _count(usage, f"{completion}_tokens"),
        "cached_tokens": _count(usage.get(f"{prompt}_tokens_details"), "cached_tokens"),
        "reasoning_tokens": _count(usage.get(f"{completion}_tokens_details"), "reasoning_tokens"),
    }


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0

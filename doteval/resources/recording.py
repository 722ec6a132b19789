"""Usage recorded where requests leave: one step around an HTTP client's `send`.

A step takes a `send` and returns one of the same signature. So steps nest, the innermost is the
real one, and each sees every attempt of a request, the retries of the SDK included.

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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import fields
from typing import Any

import orjson

from doteval.metering import Meter, current_meter
from doteval.results import Usage

# Requests and responses are httpx2's with openai 3 and httpx's with openai 2; what is used of them
# here is the same, and neither is imported.
Request = Any
Response = Any
Send = Callable[..., Response]
AsyncSend = Callable[..., Coroutine[Any, Any, Response]]

UNKNOWN_MODEL = "unknown"
"""The model of requests that name none, like a list of the models."""

_COUNTS = tuple(field.name for field in fields(Usage) if field.name not in ("model", "cost"))


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
        (attempts without a usable reply), tokens by kind, and ``seconds`` spent waiting.
        """
        with self._lock:
            errors = dict(self._errors)
        models: dict[str, dict[str, Any]] = {}
        for usage in self._totals.reading():
            models[usage.model] = {"errors": errors.get(usage.model, 0)}
            models[usage.model] |= {name: getattr(usage, name) for name in _COUNTS}
        totals = {name: sum(counts[name] for counts in models.values()) for name in ("errors", *_COUNTS)}
        return {**totals, "models": models}


def recorded(send: Send, ledger: Ledger) -> Send:
    """The step for an HTTP client that blocks."""

    def send_recorded(request: Request, **options: Any) -> Response:
        attempt = _Attempt(request, ledger)
        try:
            response = send(request, **options)
        except BaseException:
            attempt.failed()
            raise
        usage_to_come = attempt.replied(response, streamed=bool(options.get("stream")))
        if usage_to_come is not None:
            response.iter_bytes = _watched(response.iter_bytes, attempt, usage_to_come)
        return response

    return send_recorded


def recorded_async(send: AsyncSend, ledger: Ledger) -> AsyncSend:
    """The step for an HTTP client of asyncio."""

    async def send_recorded(request: Request, **options: Any) -> Response:
        attempt = _Attempt(request, ledger)
        try:
            response = await send(request, **options)
        except BaseException:
            attempt.failed()
            raise
        usage_to_come = attempt.replied(response, streamed=bool(options.get("stream")))
        if usage_to_come is not None:
            response.aiter_bytes = _watched_async(response.aiter_bytes, attempt, usage_to_come)
        return response

    return send_recorded


class _Attempt:
    """One request on its way, and the meter of the row that sent it."""

    def __init__(self, request: Request, ledger: Ledger) -> None:
        self._ledger = ledger
        self._meter = current_meter()
        self._model = _model_of(request)
        # The SDK numbers its attempts; what it did not number stands for itself.
        self._is_first = request.headers.get("x-stainless-retry-count", "0") == "0"
        self._told = Usage(self._model)
        self._since = time.perf_counter()

    def failed(self) -> None:
        """It ended without a usable reply."""
        self._ledger.add_error(self._model)
        self._add(self._counted())

    def replied(self, response: Response, *, streamed: bool) -> _UsageReader | None:
        """A reply has begun. Gives a reader for its body if that is still to come."""
        if response.status_code >= 400:
            self.failed()
            return None
        kind = response.headers.get("content-type", "")
        if streamed:
            self._add(self._counted())
            if kind.startswith("text/event-stream"):
                return _EventReader()
            return _WholeReader() if kind.startswith("application/json") else None
        if not kind.startswith("application/json"):
            self._add(self._counted())
            return None
        try:
            usage = _usage_in(orjson.loads(response.content))
        except orjson.JSONDecodeError:
            # The SDK tells the caller.
            self.failed()
            return None
        self._add(self._counted(), usage)
        return None

    def broken(self) -> None:
        """The body broke off after the reply had begun."""
        self._ledger.add_error(self._model)

    def read(self, usage: dict[str, Any]) -> None:
        """A streamed body told its usage: its own, or what it comes to so far."""
        self._add(Usage(self._model), usage)

    def _counted(self) -> Usage:
        return Usage(self._model, requests=int(self._is_first), attempts=1)

    def _add(self, counted: Usage, told: dict[str, Any] | None = None) -> None:
        now = time.perf_counter()
        tokens = self._told if told is None else _tokens(self._model, told)
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
                seconds=now - self._since,
            ),
            self._meter,
        )
        self._told, self._since = tokens, now


class _EventReader:
    """Finds usage in server-sent events, however the bytes are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            # Only few events speak of usage, and in the text of a reply its quotes are escaped.
            if line.startswith(b"data:") and b'"usage"' in line:
                usage = _usage_in(_loaded(line[5:]))
                if usage is not None:
                    yield usage

    def end(self) -> Iterator[dict[str, Any]]:
        return self.feed(b"\n")


class _WholeReader:
    """Finds usage in a JSON reply that is read in pieces."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[dict[str, Any]]:
        self._chunks.append(chunk)
        return iter(())

    def end(self) -> Iterator[dict[str, Any]]:
        usage = _usage_in(_loaded(b"".join(self._chunks)))
        if usage is not None:
            yield usage


_UsageReader = _EventReader | _WholeReader


def _watched(iterate: Callable[..., Iterator[bytes]], attempt: _Attempt, reader: _UsageReader) -> Any:
    def iterate_watched(*arguments: Any, **options: Any) -> Iterator[bytes]:
        try:
            for chunk in iterate(*arguments, **options):
                for usage in reader.feed(chunk):
                    attempt.read(usage)
                yield chunk
        except Exception:
            attempt.broken()
            raise
        for usage in reader.end():
            attempt.read(usage)

    return iterate_watched


def _watched_async(iterate: Callable[..., AsyncIterator[bytes]], attempt: _Attempt, reader: _UsageReader) -> Any:
    async def iterate_watched(*arguments: Any, **options: Any) -> AsyncIterator[bytes]:
        try:
            async for chunk in iterate(*arguments, **options):
                for usage in reader.feed(chunk):
                    attempt.read(usage)
                yield chunk
        except Exception:
            attempt.broken()
            raise
        for usage in reader.end():
            attempt.read(usage)

    return iterate_watched


def _model_of(request: Request) -> str:
    if not request.headers.get("content-type", "").startswith("application/json"):
        return UNKNOWN_MODEL
    body = _loaded(request.content)
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) and model else UNKNOWN_MODEL


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


def _tokens(model: str, usage: dict[str, Any]) -> Usage:
    """Token counts under the names of chat completions and embeddings, or of the Responses API."""
    prompt = "input" if "input_tokens" in usage else "prompt"
    completion = "output" if "output_tokens" in usage else "completion"
    return Usage(
        model,
        prompt_tokens=_count(usage, f"{prompt}_tokens"),
        completion_tokens=_count(usage, f"{completion}_tokens"),
        cached_tokens=_count(usage.get(f"{prompt}_tokens_details"), "cached_tokens"),
        reasoning_tokens=_count(usage.get(f"{completion}_tokens_details"), "reasoning_tokens"),
    )


def _count(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) else 0

"""The HTTP side of the mock server: one handler on aiohttp's low-level server, because routing takes time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from asyncio import Transport
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import orjson
from aiohttp import web

from doteval.mock_openai import replies
from doteval.mock_openai.faults import Effects, effects_of, parse_fault
from doteval.mock_openai.replies import Prompt, Tokens
from doteval.mock_openai.settings import MockSettings

_FIELDS = {"/v1/chat/completions": "messages", "/v1/responses": "input", "/v1/embeddings": "input"}
MODELS = ("gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini", "text-embedding-3-small")


class _TokenBucket:
    """A token bucket of one second's requests. `rate` is a second."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.size = max(1.0, rate)
        self._level = self.size
        self._at = time.monotonic()

    def take(self) -> float:
        """Take a token; returns 0.0, or the seconds until there is one."""
        now = time.monotonic()
        self._level = min(self.size, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < 1.0:
            return (1.0 - self._level) / self.rate
        self._level -= 1.0
        return 0.0

    def headers(self) -> dict[str, str]:
        """The rate limit headers of a reply."""
        return {
            "x-ratelimit-limit-requests": f"{self.size:g}",
            "x-ratelimit-remaining-requests": str(int(self._level)),
            "x-ratelimit-reset-requests": f"{math.ceil((self.size - self._level) / self.rate * 1000)}ms",
        }


class MockServer(web.Server):
    """Serves the API, and its counters under ``/stats`` (DELETE sets them to zero)."""

    def __init__(self, settings: MockSettings) -> None:
        super().__init__(self._serve, access_log=None)
        self._settings = settings
        self._faults = tuple(parse_fault(fault) for fault in settings.faults)
        self._random = random.Random(settings.seed)  # noqa: S311 - latencies, not secrets
        self._bucket = _TokenBucket(settings.rate_limit) if settings.rate_limit else None
        self._serial = 0
        self._in_flight = 0
        self._reset()

    def _reset(self) -> None:
        self._counters: Counter[str] = Counter()
        self._tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._prompts: Counter[bytes] = Counter()
        self._in_flight_max = self._in_flight
        self._first_at: float | None = None
        self._last_at = 0.0

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last reset; `MockOpenAI.stats` describes them."""
        total: Counter[str] = Counter()
        for counts in self._tokens.values():
            total.update(counts)
        names = ("requests", "replies", "rejected", "rate_limited", "hangups", "malformed", "connections")
        token_names = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
        return {
            **{name: self._counters[name] for name in names},
            **{name: total[name] for name in token_names},
            "distinct_prompts": len(self._prompts),
            "in_flight": self._in_flight,
            "in_flight_max": self._in_flight_max,
            "seconds": 0.0 if self._first_at is None else max(0.0, self._last_at - self._first_at),
            "models": {
                model: {name: counts[name] for name in ("replies", *token_names)}
                for model, counts in self._tokens.items()
            },
        }

    def connection_made(self, handler: web.RequestHandler, transport: Transport) -> None:
        super().connection_made(handler, transport)
        self._counters["connections"] += 1

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        field = _FIELDS.get(path)
        if field is None:
            return self._serve_other(request)
        if request.method != "POST":
            return _json(replies.error_body(405, f"{path} takes POST"), 405)
        self._counters["requests"] += 1
        if self._first_at is None:
            self._first_at = time.monotonic()
        self._in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self._in_flight)
        try:
            return await self._answer(request, path, field)
        finally:
            self._in_flight -= 1
            self._last_at = time.monotonic()

    def _serve_other(self, request: web.BaseRequest) -> web.Response:
        match request.method, request.path:
            case "GET", "/stats":
                return _json(self.stats())
            case "DELETE", "/stats":
                self._reset()
                return _json({})
            case "GET", "/v1/models":
                listed = [{"id": model, "object": "model", "created": 0, "owned_by": "mock"} for model in MODELS]
                return _json({"object": "list", "data": listed})
            case _, path:
                return _json(replies.error_body(404, f"no such path: {path}"), 404)

    async def _answer(self, request: web.BaseRequest, path: str, field: str) -> web.StreamResponse:
        # request.read() refuses bodies of more than a megabyte.
        raw = await request.content.read()
        try:
            body = orjson.loads(raw)
            if not isinstance(body, dict):
                raise ValueError("the body must be a JSON object")  # noqa: TRY004 - it is the request that is wrong
            prompt = replies.read_prompt(body, field)
            key = prompt.key
            self._prompts[key] += 1
            effects = effects_of(
                self._faults,
                request.headers.get("x-mock-fault"),
                prompt.text,
                key,
                self._prompts[key],
                self._settings.seed,
            )
        except ValueError as error:
            return self._reject(400, str(error))
        headers: dict[str, str] = {}
        if self._bucket is not None:
            wait = self._bucket.take()
            headers = self._bucket.headers() if self._settings.rate_limit_headers else {}
            if wait > 0:
                self._counters["rate_limited"] += 1
                return self._reject(429, "rate limit reached", headers, retry_after=wait)
        pause = self._latency() + effects.delay
        if pause > 0:
            await asyncio.sleep(pause)
        if effects.status >= 400:
            return self._reject(effects.status, "a fault sets this status", headers, retry_after=effects.retry_after)
        return await self._reply(request, path, body, prompt, effects, headers)

    def _latency(self) -> float:
        settings = self._settings
        if settings.latency and settings.latency_sigma:
            return self._random.lognormvariate(math.log(settings.latency), settings.latency_sigma)
        return settings.latency

    async def _reply(
        self,
        request: web.BaseRequest,
        path: str,
        body: Mapping[str, Any],
        prompt: Prompt,
        effects: Effects,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        self._serial += 1
        if path == "/v1/embeddings":
            given = body["input"]
            texts = [given] if isinstance(given, str) else [str(text) for text in given]
            tokens = Tokens(prompt=sum(map(replies.count_tokens, texts)))
            dimensions = int(body.get("dimensions") or replies.EMBEDDING_DIMENSIONS)
            encoding = str(body.get("encoding_format") or "float")
            payload = replies.embeddings(prompt.model, texts, tokens, dimensions, encoding)
            return await self._send_whole(request, payload, prompt.model, tokens, effects, headers)
        text = effects.reply if effects.reply is not None else replies.reply_text(self._settings.reply, prompt)
        text, finish = _cut(text, body.get("max_completion_tokens") or body.get("max_tokens"))
        if path == "/v1/responses":
            text, finish = _cut(text, body.get("max_output_tokens"))
        tokens = Tokens(
            replies.count_tokens(prompt.text),
            replies.count_tokens(text) + effects.reasoning_tokens,
            effects.cached_tokens,
            effects.reasoning_tokens,
        )
        if path == "/v1/responses":
            payload = replies.response(self._serial, prompt.model, text, tokens, finish)
            if body.get("stream"):
                events = [
                    b"event: %b\ndata: %b\n\n" % (str(event["type"]).encode(), orjson.dumps(event))
                    for event in replies.response_events(payload, text)
                ]
                return await self._send_stream(request, events, prompt.model, tokens, effects, headers)
            return await self._send_whole(request, payload, prompt.model, tokens, effects, headers)
        if body.get("stream"):
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
            chunks = replies.chat_chunks(self._serial, prompt.model, text, tokens, finish, include_usage)
            events = [*(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks), b"data: [DONE]\n\n"]
            reported = tokens if include_usage else Tokens()
            return await self._send_stream(request, events, prompt.model, reported, effects, headers)
        payload = replies.chat_completion(self._serial, prompt.model, text, tokens, finish)
        return await self._send_whole(request, payload, prompt.model, tokens, effects, headers)

    async def _send_whole(
        self,
        request: web.BaseRequest,
        payload: Mapping[str, Any],
        model: str,
        tokens: Tokens,
        effects: Effects,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        data = orjson.dumps(payload)
        if effects.hangup:
            head = {**headers, "Content-Type": "application/json", "Content-Length": str(len(data))}
            return await self._send_and_hang_up(request, [data[: len(data) // 2]], head)
        if effects.malformed:
            self._counters["malformed"] += 1
            return web.Response(body=data[: len(data) // 2], headers=headers, content_type="application/json")
        self._count_reply(model, tokens)
        return web.Response(body=data, headers=headers, content_type="application/json")

    async def _send_stream(
        self,
        request: web.BaseRequest,
        events: list[bytes],
        model: str,
        tokens: Tokens,
        effects: Effects,
        headers: dict[str, str],
    ) -> web.StreamResponse:
        head = {**headers, "Content-Type": "text/event-stream; charset=utf-8"}
        if effects.hangup:
            return await self._send_and_hang_up(request, events[: len(events) // 2], head)
        if effects.malformed:
            self._counters["malformed"] += 1
            events = [event[: len(event) // 2] + b"\n\n" for event in events]
        else:
            self._count_reply(model, tokens)
        answer = web.StreamResponse(headers=head)
        await answer.prepare(request)
        for event in events:
            await answer.write(event)
        await answer.write_eof()
        return answer

    async def _send_and_hang_up(
        self, request: web.BaseRequest, parts: Iterable[bytes], headers: dict[str, str]
    ) -> web.StreamResponse:
        self._counters["hangups"] += 1
        answer = web.StreamResponse(headers=headers)
        await answer.prepare(request)
        for part in parts:
            await answer.write(part)
        if request.transport is not None:
            request.transport.close()
        return answer

    def _count_reply(self, model: str, tokens: Tokens) -> None:
        self._counters["replies"] += 1
        counts = self._tokens[model]
        counts["replies"] += 1
        counts["prompt_tokens"] += tokens.prompt
        counts["completion_tokens"] += tokens.completion
        counts["cached_tokens"] += tokens.cached
        counts["reasoning_tokens"] += tokens.reasoning

    def _reject(
        self, status: int, message: str, headers: Mapping[str, str] | None = None, retry_after: float = 1.0
    ) -> web.Response:
        self._counters["rejected"] += 1
        head = dict(headers or {})
        if status in (429, 503):
            # RFC 9110 allows whole seconds only; OpenAI's second header is finer.
            head["Retry-After"] = str(math.ceil(retry_after))
            head["retry-after-ms"] = str(math.ceil(retry_after * 1000))
        return _json(replies.error_body(status, message), status, head)


def _cut(text: str, limit: object) -> tuple[str, str]:
    """The text cut to a limit of tokens, and the finish reason."""
    if not isinstance(limit, int):
        return text, "stop"
    words = text.split()
    return (text, "stop") if len(words) <= limit else (" ".join(words[:limit]), "length")


def _json(payload: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=orjson.dumps(payload), status=status, headers=headers, content_type="application/json")


@contextlib.asynccontextmanager
async def serving(settings: MockSettings) -> AsyncIterator[str]:
    """Serve inside the block; yields the base URL (``http://host:port/v1``). Raises OSError if the port is taken."""
    runner = web.ServerRunner(MockServer(settings), shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.host, settings.port, backlog=2048)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1"
    finally:
        await runner.cleanup()

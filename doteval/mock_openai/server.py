"""The HTTP side of the mock server: one handler on aiohttp's low-level server, because routing takes time."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import tempfile
import time
from asyncio import Transport
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from doteval.mock_openai import models
from doteval.mock_openai.batches import Batches
from doteval.mock_openai.chat import CHAT
from doteval.mock_openai.counters import Counters
from doteval.mock_openai.embeddings import EMBEDDINGS
from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.faults import MODEL_ENDPOINTS, Effects, Fault, effects_of, parse_fault, parse_faults
from doteval.mock_openai.files import FileStore
from doteval.mock_openai.prompts import read_prompt
from doteval.mock_openai.replies import Asked, ModelEndpoint
from doteval.mock_openai.responses import RESPONSES
from doteval.mock_openai.sending import as_json, error_of, rejection, send_stream, send_whole
from doteval.mock_openai.settings import MockSettings, drawn_seconds

_ENDPOINTS = {"/v1/chat/completions": CHAT, "/v1/responses": RESPONSES, "/v1/embeddings": EMBEDDINGS}
_WHERES = ("models", "upload", "files", "batches", "line", "batch")
_BINARY = "application/octet-stream"


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


def _by_place(faults: tuple[str, ...]) -> dict[str, tuple[Fault, ...]]:
    """The faults of each kind of request; those without a place hit the requests to all models."""
    parsed = [parse_fault(fault) for fault in faults]
    places = {place: {place, ""} if place in MODEL_ENDPOINTS else {place} for place in (*MODEL_ENDPOINTS, *_WHERES)}
    return {place: tuple(fault for fault in parsed if fault.where in found) for place, found in places.items()}


class MockServer(web.Server):
    """Serves the API, and its counters under ``/stats`` (DELETE sets them to zero).

    directory: where files are kept.
    """

    def __init__(self, settings: MockSettings, directory: Path) -> None:
        super().__init__(self._serve, access_log=None)
        self._settings = settings
        self._faults = _by_place(settings.faults)
        self._random = random.Random(settings.seed)  # noqa: S311 - latencies, not secrets
        self._bucket = _TokenBucket(settings.rate_limit) if settings.rate_limit else None
        self._serial = 0
        self._counters = Counters()
        self._files = FileStore(directory, settings.seed, settings.batch_bytes)
        self._batches = Batches(settings, self._files, _ENDPOINTS, self._faults, self._counters)

    async def close_batches(self) -> None:
        """Stop the batches that are in progress."""
        await self._batches.close()

    def connection_made(self, handler: web.RequestHandler, transport: Transport) -> None:
        super().connection_made(handler, transport)
        self._counters.counts["connections"] += 1

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        endpoint = _ENDPOINTS.get(path)
        if endpoint is None:
            return await self._serve_other(request, path)
        counters = self._counters
        counters.begin(endpoint.kind, request.headers.get("Authorization"))
        counters.begin_model_request()
        self._serial += 1
        headers = {"x-request-id": f"req_mock_{self._serial}"}
        try:
            if request.method != "POST":
                raise _not_allowed(request, "POST")
            return await self._answer(request, endpoint, headers)
        except RequestError as error:
            return self._reject(error, headers)
        finally:
            counters.end_model_request()

    async def _answer(
        self, request: web.BaseRequest, endpoint: ModelEndpoint, headers: dict[str, str]
    ) -> web.StreamResponse:
        # request.read() refuses bodies of more than a megabyte.
        body = _parsed(await request.content.read())
        prompt = read_prompt(body, endpoint.field)
        key = prompt.key
        faults = self._faults[endpoint.kind]
        if (header := request.headers.get("x-mock-fault")) is not None:
            faults += _asked(header)
        effects = self._effects(faults, prompt.text, key, self._counters.nth(key))
        self._counters.asked(effects.key)
        if self._bucket is not None:
            wait = self._bucket.take()
            if self._settings.rate_limit_headers:
                headers.update(self._bucket.headers())
            if wait > 0:
                self._counters.counts["rate_limited"] += 1
                error = RequestError(
                    f"Rate limit reached for {prompt.model} in organization org-mock on requests per second: Limit "
                    f"{self._bucket.size:g}. Please try again in {math.ceil(wait * 1000)}ms.",
                    status=429,
                    kind="requests",
                    code="rate_limit_exceeded",
                )
                return self._reject(error, headers, wait)
        if (pause := self._latency() + effects.delay) > 0:
            await asyncio.sleep(pause)
        if (failure := error_of(effects)) is not None:
            return self._reject(failure, headers, effects.retry_after)
        reply = endpoint.reply(Asked(body, prompt, key, effects, self._settings.reply, self._serial))
        if not self._spoiled(effects, stream=reply.events is not None):
            self._counters.reply(endpoint.kind, prompt.model, reply.tokens, key, effects.key, reply.reported)
        if reply.events is not None:
            return await send_stream(request, effects, headers, reply.events, endpoint.error_event)
        return await send_whole(request, effects, headers, orjson.dumps(reply.payload))

    def _effects(self, faults: tuple[Fault, ...], prompt: str, key: bytes, nth: int) -> Effects:
        try:
            return effects_of(faults, prompt, key, nth, self._settings.seed)
        except ValueError as error:
            raise RequestError(str(error)) from error

    def _spoiled(self, effects: Effects, *, stream: bool = False) -> bool:
        """Whether the client cannot read the reply; counts the fault."""
        fault = effects.spoiled_by(stream)
        if fault is not None:
            self._counters.spoil(fault)
        return fault is not None

    def _latency(self) -> float:
        return drawn_seconds(self._random, self._settings.latency, self._settings.latency_sigma)

    def _reject(self, error: RequestError, headers: Mapping[str, str], retry_after: float = 1.0) -> web.Response:
        self._counters.counts["rejected"] += 1
        return rejection(error, headers, retry_after)

    async def _serve_other(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if path == "/stats":
            return self._serve_stats(request)
        # /v1/KIND/ID/ACTION
        kind, *rest = path.removeprefix("/v1/").split("/")
        self._serial += 1
        headers = {"x-request-id": f"req_mock_{self._serial}"}
        try:
            if not path.startswith("/v1/") or kind not in ("models", "files", "batches"):
                raise _unknown(request)
            self._counters.begin(kind, request.headers.get("Authorization"))
            where = "upload" if kind == "files" and request.method == "POST" else kind
            key = f"{request.method} {path}".encode()
            asked = _asked(request.headers.get("x-mock-fault"))
            faults = (*self._faults[where], *(fault for fault in asked if fault.where in ("", where)))
            effects = self._effects(faults, "", key, self._counters.nth_other(key))
            if effects.delay:
                await asyncio.sleep(effects.delay)
            if (failure := error_of(effects)) is not None:
                self._counters.faults["status"] += 1
                return rejection(failure, headers, effects.retry_after)
            data, content_type = await self._act(request, kind, rest, asked)
            self._spoiled(effects)
            return await send_whole(request, effects, headers, data, content_type)
        except RequestError as error:
            return rejection(error, headers)

    async def _act(
        self, request: web.BaseRequest, kind: str, rest: list[str], asked: tuple[Fault, ...]
    ) -> tuple[bytes, str]:
        """Do what any other request asks for; returns the body of the reply and its content type."""
        payload: Mapping[str, Any]
        match request.method, kind, rest:
            case "GET", "models", []:
                payload = models.listed()
            case "GET", "models", [name]:
                payload = models.retrieved(name)
            case "POST", "files", []:
                payload = await self._files.upload(request)
            case "GET", "files", []:
                payload = self._files.listed(request.query)
            case "GET", "files", [file_id]:
                payload = self._files.get(file_id).to_json()
            case "GET", "files", [file_id, "content"]:
                self._files.get(file_id)
                return self._files.path(file_id).read_bytes(), _BINARY
            case "DELETE", "files", [file_id]:
                payload = self._files.delete(file_id)
            case "POST", "batches", []:
                payload = self._batches.create(_parsed(await request.content.read()), asked).to_json()
            case "GET", "batches", []:
                payload = self._batches.listed(request.query)
            case "GET", "batches", [batch_id]:
                payload = self._batches.get(batch_id).to_json()
            case "POST", "batches", [batch_id, "cancel"]:
                payload = self._batches.cancel(batch_id).to_json()
            case _:
                raise _unknown(request)
        return orjson.dumps(payload), "application/json"

    def _serve_stats(self, request: web.BaseRequest) -> web.Response:
        match request.method:
            case "GET":
                return as_json(self._counters.stats())
            case "DELETE":
                self._counters.reset()
                return as_json({})
            case _:
                return rejection(_not_allowed(request, "GET and DELETE"), {})


def _asked(header: str | None) -> tuple[Fault, ...]:
    try:
        return parse_faults(header)
    except ValueError as error:
        raise RequestError(str(error)) from error


def _parsed(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(body, dict):
        raise RequestError("We could not parse the JSON body of your request: it must be an object.")
    return body


def _unknown(request: web.BaseRequest) -> RequestError:
    return RequestError(f"Invalid URL ({request.method} {request.path})", status=404)


def _not_allowed(request: web.BaseRequest, methods: str) -> RequestError:
    return RequestError(f"Not allowed to {request.method} on {request.path}: use {methods}.", status=405)


@contextlib.asynccontextmanager
async def serving(settings: MockSettings) -> AsyncIterator[str]:
    """Serve inside the block; yields the base URL (``http://host:port/v1``). Raises OSError if the port is taken."""
    with tempfile.TemporaryDirectory(prefix="doteval-mock-") as directory:
        server = MockServer(settings, Path(directory))
        runner = web.ServerRunner(server, shutdown_timeout=1.0)
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.host, settings.port, backlog=2048)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}/v1"
        finally:
            await server.close_batches()
            await runner.cleanup()

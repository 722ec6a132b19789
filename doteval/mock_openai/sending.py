"""Sends replies, whole or as streams, with the faults that were asked for."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import orjson
from aiohttp import web

from doteval.mock_openai.errors import RequestError, of_status, quota_exceeded
from doteval.mock_openai.faults import Effects

_CHECK_SECONDS = 0.1
_JSON = "application/json"


async def send_whole(
    request: web.BaseRequest, effects: Effects, headers: dict[str, str], data: bytes, content_type: str = _JSON
) -> web.StreamResponse:
    """Send a body."""
    half = data[: len(data) // 2]
    match effects.spoiled_by(stream=False):
        case "silent":
            return await _silence(request)
        case "hangup":
            head = {**headers, "Content-Type": content_type, "Content-Length": str(len(data))}
            return await _hang_up(request, [half], head)
        case "malformed":
            data = half
        case "error":
            data = orjson.dumps(of_status(500).body)
    if effects.first_byte:
        head = {**headers, "Content-Type": content_type, "Content-Length": str(len(data))}
        return await _send_parts(request, effects, [data], head)
    return web.Response(body=data, headers=headers, content_type=content_type)


async def send_stream(
    request: web.BaseRequest,
    effects: Effects,
    headers: dict[str, str],
    events: Iterator[bytes],
    error_event: Callable[[int], bytes],
) -> web.StreamResponse:
    """Send server-sent events. `error_event` is that of `ModelEndpoint`."""
    head = {**headers, "Content-Type": "text/event-stream; charset=utf-8"}
    spoiled_by = effects.spoiled_by(stream=True)
    if spoiled_by is None:
        return await _send_parts(request, effects, events, head)
    all_events = list(events)
    half = all_events[: len(all_events) // 2]
    match spoiled_by:
        case "silent":
            return await _silence(request)
        case "hangup":
            return await _hang_up(request, half, head)
        case "malformed":
            half = [event[: len(event) // 2] + b"\n\n" for event in all_events]
        case "error":
            half.append(error_event(len(half)))
    return await _send_parts(request, effects, half, head)


async def _send_parts(
    request: web.BaseRequest, effects: Effects, parts: Iterable[bytes], headers: dict[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(headers=headers)
    await answer.prepare(request)
    pause = effects.first_byte
    for part in parts:
        if pause:
            await asyncio.sleep(pause)
        await answer.write(part)
        pause = effects.pace
    await answer.write_eof()
    return answer


async def _hang_up(request: web.BaseRequest, parts: Iterable[bytes], headers: dict[str, str]) -> web.StreamResponse:
    answer = web.StreamResponse(headers=headers)
    await answer.prepare(request)
    for part in parts:
        await answer.write(part)
    if request.transport is not None:
        request.transport.close()
    return answer


async def _silence(request: web.BaseRequest) -> web.StreamResponse:
    """Send nothing until the client leaves."""
    while (transport := request.transport) is not None and not transport.is_closing():  # noqa: ASYNC110 - no event of aiohttp
        await asyncio.sleep(_CHECK_SECONDS)
    return web.Response()


def error_of(effects: Effects) -> RequestError | None:
    """The error status that a fault asks for."""
    if effects.quota:
        return quota_exceeded()
    return of_status(effects.status) if effects.status >= 400 else None


def rejection(error: RequestError, headers: Mapping[str, str], retry_after: float = 1.0) -> web.Response:
    """The reply for a request that is refused. `retry_after` is in seconds."""
    head = dict(headers)
    if error.status in (429, 503) and error.code != "insufficient_quota":
        # RFC 9110 allows whole seconds only; OpenAI's second header is finer.
        head["Retry-After"] = str(math.ceil(retry_after))
        head["retry-after-ms"] = str(math.ceil(retry_after * 1000))
    return as_json(error.body, error.status, head)


def as_json(payload: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A reply with a JSON body."""
    return web.Response(body=orjson.dumps(payload), status=status, headers=headers, content_type=_JSON)

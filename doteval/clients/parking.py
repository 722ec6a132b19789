"""What the journal step does with calls of rows in batch mode that have no recorded reply.

A call is noted as wanted, lingers so that parallel calls are noted too, and parks its row. It belongs outside all other
steps: inside the limiter of rates, calls that wait for their turn would not be noted in time.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from typing import Any

import orjson

from doteval.clients.batch_clients import remember_client
from doteval.clients.request_identity import RequestIdentity
from doteval.clients.steps import UNKNOWN_MODEL, ApiCall, Response
from doteval.core.fast_dataclass import row_value
from doteval.core.parking import BYTES_PER_TOKEN, Parked, Parking, WantedCall

ENDPOINTS = ("/chat/completions", "/responses", "/embeddings")
"""The endpoints whose requests can be put into a batch, as ends of their paths."""

# Parallel calls of a row begin within this time of one another. Threads of a sync row start at once, and a process that
# runs one row at a time would lose the time for each of them.
_LINGER_SECONDS = 0.02
_LINGER_SYNC_SECONDS = 0.005
_MOST_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_OF_STREAMS = ("stream", "stream_options")

_THREAD_REMEDY = "Start the thread with the row's context: asyncio.to_thread, or contextvars.copy_context().run."


@row_value
class AskedCall:
    """What a call asks, as `doteval.core.parking.WantedCall` has it."""

    digest: bytes
    nth: int
    position: int


class _RowsInBatchMode:
    """Counts the rows in batch mode whose function runs in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count = 0

    def __enter__(self) -> None:
        with self._lock:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._count -= 1

    def forget(self) -> None:
        self._count = 0

    def __bool__(self) -> bool:
        return self._count > 0


ROWS_IN_BATCH_MODE = _RowsInBatchMode()
"""Enter it while the function of a row in batch mode runs."""
os.register_at_fork(after_in_child=ROWS_IN_BATCH_MODE.forget)


def refusal_outside_of_rows(call: ApiCall) -> Response | None:
    """The reply to a call that no row in batch mode can wait for, None if the call may be sent."""
    if call.meter is not None and call.meter.parks:
        # A task or a process that the row has left behind, or begun.
        return _refused(call, "it does not belong to a row that runs in this process")
    if call.meter is None and ROWS_IN_BATCH_MODE:
        return _refused(call, f"it comes from a thread that belongs to no row. {_THREAD_REMEDY}")
    return None


async def park(
    call: ApiCall, parking: Parking, identity: RequestIdentity, secrets: Collection[str], asked: AskedCall
) -> Response:
    """Note a call as wanted, and park its row. Returns a reply only if the call cannot be put into a batch.

    secrets: those that its body holds itself.

    Raises Parked: the row waits for the reply.
    """
    if parking.parked:
        raise Parked
    why = _unsuited(call, identity, secrets)
    if why is not None:
        return _refused(call, why)
    body = _batch_body(call)
    inputs = call.body.get("input") if identity.endpoint == "/embeddings" else None
    wanted = WantedCall(
        asked.digest,
        asked.nth,
        asked.position,
        remember_client(call.evaluation, call.request, identity.endpoint),
        identity.endpoint,
        call.model,
        body,
        _tokens(call.body, body),
        len(inputs) if isinstance(inputs, list) and not isinstance(next(iter(inputs), None), int) else 1,
        call.judge,
    )
    if parking.want(wanted):
        await call.io.pause(_LINGER_SECONDS if call.io.is_async else _LINGER_SYNC_SECONDS)
        parking.park()
    raise Parked


def _unsuited(call: ApiCall, identity: RequestIdentity, secrets: Collection[str]) -> str | None:
    """Why a call cannot be put into a batch, None if it can."""
    url = call.request.url
    if call.request.method != "POST" or identity.endpoint not in ENDPOINTS:
        what = identity.endpoint or "this path"
        return f"{call.request.method} {what} is not supported in batches; {', '.join(ENDPOINTS)} are"
    if str(url).partition("?")[2]:
        return "its URL has query parameters, as those of Azure have, which batches do not support"
    if call.model == UNKNOWN_MODEL:
        return "its body is not JSON that names a model"
    if identity.hidden_in(call.request.content, secrets) != call.request.content:
        return "its body holds a secret, and the store must hold none"
    return None


def _batch_body(call: ApiCall) -> bytes:
    """The JSON object of a request in one line, without what asks for a stream."""
    content: bytes = call.request.content
    if b"\n" not in content and not any(name in call.body for name in _OF_STREAMS):
        return content
    body = {name: value for name, value in call.body.items() if name not in _OF_STREAMS}
    try:
        return orjson.dumps(body)
    except TypeError:
        # orjson refuses lone surrogates and integers of more than 64 bits.
        return json.dumps(body).encode()


def _tokens(body: Mapping[str, Any], content: bytes) -> int:
    most = next((body[name] for name in _MOST_TOKENS if type(body.get(name)) is int), 0)
    return len(content) // BYTES_PER_TOKEN + 1 + most


def _refused(call: ApiCall, why: str) -> Response:
    # As a reply with an error status: the SDK would turn an exception into a connection error, which is tried again.
    message = f"doteval has not sent this request: in batch mode {why}"
    error = {"error": {"message": message, "type": "batch_mode", "code": "not_batchable", "param": None}}
    return call.io.reply(call.request, {"content-type": "application/json"}, orjson.dumps(error), 400)

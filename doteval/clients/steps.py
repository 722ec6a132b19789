"""Request steps: the layers that a model call passes on its way through an HTTP client's `send`.

A step is an async function from an `ApiCall` to a response, made around the next step; the innermost one sends. Steps
are written once for sync and async clients: they wait only through the call's `Io`. The `Io` of a sync client blocks,
so its coroutine runs to the end without being suspended.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from doteval.clients.streams import StreamObserver, observe, observe_async
from doteval.core import lenient_json
from doteval.core.call_journal import CallSource
from doteval.core.judging import is_judging
from doteval.core.metering import Meter, current_meter
from doteval.core.results import Usage
from doteval.errors import UsageError

# Requests and responses are httpx2's with openai 3 and httpx's with openai 2. The parts used here are the same in
# both, and neither package is imported.
Request = Any
Response = Any
Send = Callable[..., Response]
AsyncSend = Callable[..., Coroutine[Any, Any, Response]]
MakeReply = Callable[[Request, dict[str, str], bytes, int], Response]

UNKNOWN_MODEL = "unknown"
"""The model of requests that name none, such as a request for the list of models."""

Value = TypeVar("Value")


class Io(Protocol):
    """The operations of a step that take time. is_async: whether others run while they wait."""

    is_async: bool

    async def send(self, request: Request, options: dict[str, Any]) -> Response:
        """Send the request by the HTTP client."""

    async def pause(self, seconds: float) -> None:
        """Sleep."""

    async def wait(self, future: Future[Value], seconds: float | None = None) -> Value:
        """The result of a future that another thread completes. Raises TimeoutError after `seconds`."""

    async def read(self, response: Response) -> None:
        """Read the whole body of a response that was to be streamed."""

    async def close(self, response: Response) -> None:
        """Close a response whose body nobody will read."""

    def observe(self, response: Response, observer: StreamObserver, *, events: bool) -> None:
        """Have `observer` see the body as the caller reads it. `events`: whether it is one of server-sent events."""

    def reply(self, request: Request, headers: dict[str, str], content: bytes, status: int = 200) -> Response:
        """A response that does not come from the server. `headers`: by names in lower case."""


class ApiCall:
    """One request on its way, with the meter of the row that makes it.

    `body`: the JSON object sent, empty if there is none; `try_number`: counts from 1; `tokens`: those of the reply,
    None until known; `reported`: the usage that the reply reported, None until known; `error_status`: the HTTP status
    of the error that a streamed body turned out to be, else 0; `source`: where the reply comes from; `judge`: whether a
    judge asks.
    """

    __slots__ = (
        "body",
        "error_status",
        "io",
        "judge",
        "meter",
        "model",
        "options",
        "reported",
        "request",
        "source",
        "tokens",
        "try_number",
    )

    def __init__(self, io: Io, request: Request, options: dict[str, Any]) -> None:
        self.io = io
        self.request = request
        self.options = options
        self.meter: Meter | None = current_meter()
        self.judge = is_judging()
        self.try_number = 1
        self.tokens: int | None = None
        self.reported: Usage | None = None
        self.error_status = 0
        self.source = CallSource.LIVE
        self.body = _body_of(request)
        model = self.body.get("model")
        self.model: str = model if isinstance(model, str) and model else UNKNOWN_MODEL

    @property
    def streamed(self) -> bool:
        """Whether the caller will read the body as it arrives."""
        return bool(self.options.get("stream"))

    @property
    def evaluation(self) -> str:
        """The evaluation of the row that makes the call, "" outside of rows."""
        scope = self.meter and self.meter.scope
        return scope.evaluation if scope else ""


Step = Callable[[ApiCall], Awaitable[Response]]


async def send_step(call: ApiCall) -> Response:
    """The innermost step."""
    return await call.io.send(call.request, call.options)


def _http_reply(request: Request, headers: dict[str, str], content: bytes, status: int = 200) -> Response:
    response = http_package(request).Response(status, headers=headers, content=content, request=request)
    response.elapsed = timedelta(0)
    return response


def send_through(send: Send, step: Step) -> Send:
    """A `send` of a sync client that passes through `step`."""
    io = _BlockingIo(send)

    def send_with_steps(request: Request, **options: Any) -> Response:
        coroutine: Any = step(ApiCall(io, request, options))
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("a step waited for something else than its Io")

    return send_with_steps


def send_through_async(send: AsyncSend, step: Step, reply: MakeReply = _http_reply) -> AsyncSend:
    """A `send` of an async client that passes through `step`. `reply` makes responses that no server sent."""
    io = _AsyncIo(send, reply)

    async def send_with_steps(request: Request, **options: Any) -> Response:
        return await step(ApiCall(io, request, options))

    return send_with_steps


class _BlockingIo:
    is_async = False

    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, request: Request, options: dict[str, Any]) -> Response:
        return self._send(request, **options)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - nothing else runs here

    async def wait(self, future: Future[Value], seconds: float | None = None) -> Value:
        try:
            return future.result(seconds)
        except BaseException:
            # Ctrl-C, or the deadline of the row: nobody needs the result any more.
            future.cancel()
            raise

    async def read(self, response: Response) -> None:
        response.read()

    async def close(self, response: Response) -> None:
        response.close()

    def reply(self, request: Request, headers: dict[str, str], content: bytes, status: int = 200) -> Response:
        return _http_reply(request, headers, content, status)

    def observe(self, response: Response, observer: StreamObserver, *, events: bool) -> None:
        observe(response, observer, events=events)


class _AsyncIo:
    is_async = True

    def __init__(self, send: AsyncSend, reply: MakeReply) -> None:
        self._send = send
        self._reply = reply

    async def send(self, request: Request, options: dict[str, Any]) -> Response:
        return await self._send(request, **options)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, future: Future[Value], seconds: float | None = None) -> Value:
        wrapped = asyncio.wrap_future(future)
        return await (wrapped if seconds is None else asyncio.wait_for(wrapped, seconds))

    async def read(self, response: Response) -> None:
        await response.aread()

    async def close(self, response: Response) -> None:
        await response.aclose()

    def reply(self, request: Request, headers: dict[str, str], content: bytes, status: int = 200) -> Response:
        return self._reply(request, headers, content, status)

    def observe(self, response: Response, observer: StreamObserver, *, events: bool) -> None:
        observe_async(response, observer, events=events)


def http_package(thing: Any) -> Any:
    """The package that an HTTP client or a request comes from: httpx or httpx2.

    Raises UsageError for an object of neither package.
    """
    for kind in type(thing).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return importlib.import_module(name)
    raise UsageError(f"{type(thing).__name__} is not an HTTP client of the openai package")


def content_of(request: Request) -> bytes | None:
    """The body of a request, None for an upload that is streamed."""
    try:
        content: bytes = request.content
    except RuntimeError:
        return None
    return content


def _body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request, empty if there is none. The server is left to complain about a broken one."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        return {}
    try:
        body = lenient_json.loads(request.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}

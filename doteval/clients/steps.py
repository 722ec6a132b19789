"""One request on its way, and how it is sent: what the steps around an HTTP client's `send` are made of.

A step is an async function from an `Exchange` to a response, made around the next one; the innermost
sends. Steps are written once, for both kinds of clients: they do nothing that takes time but through
the exchange's `Io`. For a client that blocks, `Io` blocks, and the coroutine runs through without ever
being suspended.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Protocol, TypeVar

import orjson

from doteval.clients.streams import Watcher, watch, watch_async
from doteval.core.metering import Meter, current_meter
from doteval.errors import UsageError

# Requests and responses are httpx2's with openai 3 and httpx's with openai 2; what is used of them
# here is the same, and neither is imported.
Request = Any
Response = Any
Send = Callable[..., Response]
AsyncSend = Callable[..., Coroutine[Any, Any, Response]]
MakeReply = Callable[[Request, dict[str, str], bytes], Response]

UNKNOWN_MODEL = "unknown"
"""The model of requests that name none, like a list of the models."""

Value = TypeVar("Value")


class Io(Protocol):
    """What takes time."""

    async def send(self, request: Request, options: dict[str, Any]) -> Response: ...

    async def pause(self, seconds: float) -> None: ...

    async def wait(self, future: Future[Value]) -> Value:
        """The result of a future that another thread completes."""

    async def close(self, response: Response) -> None:
        """Give up a reply whose body nobody will read."""

    def watch(self, response: Response, watcher: Watcher) -> None: ...

    def reply(self, request: Request, headers: dict[str, str], content: bytes) -> Response:
        """A successful reply that no server sent just now."""


class Exchange:
    """A request, the meter of the row that sent it, how often it was tried, and the tokens of the reply once known."""

    __slots__ = ("attempt", "body", "io", "meter", "model", "options", "request", "tokens")

    def __init__(self, io: Io, request: Request, options: dict[str, Any]) -> None:
        self.io = io
        self.request = request
        self.options = options
        self.meter: Meter | None = current_meter()
        self.attempt = 1
        self.tokens: int | None = None
        self.body = _body_of(request)
        model = self.body.get("model")
        self.model: str = model if isinstance(model, str) and model else UNKNOWN_MODEL

    @property
    def streamed(self) -> bool:
        """Whether the caller will read the body as it comes."""
        return bool(self.options.get("stream"))

    @property
    def evaluation(self) -> str:
        """The evaluation that the request is for, "" outside of rows."""
        place = self.meter and self.meter.place
        return place.evaluation if place else ""


Step = Callable[[Exchange], Awaitable[Response]]


async def sent(exchange: Exchange) -> Response:
    """The innermost step."""
    return await exchange.io.send(exchange.request, exchange.options)


def _http_reply(request: Request, headers: dict[str, str], content: bytes) -> Response:
    response = http_package(request).Response(200, headers=headers, content=content, request=request)
    response.elapsed = timedelta(0)
    return response


def stepped(send: Send, step: Step) -> Send:
    """A `send` that goes through the steps, for a client that blocks."""
    io = _BlockingIo(send)

    def send_through(request: Request, **options: Any) -> Response:
        coroutine: Any = step(Exchange(io, request, options))
        try:
            coroutine.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("a step waited for something else than its Io")

    return send_through


def stepped_async(send: AsyncSend, step: Step, reply: MakeReply = _http_reply) -> AsyncSend:
    """A `send` that goes through the steps, for a client of asyncio. `reply` makes the replies of the cache."""
    io = _AsyncIo(send, reply)

    async def send_through(request: Request, **options: Any) -> Response:
        return await step(Exchange(io, request, options))

    return send_through


class _BlockingIo:
    def __init__(self, send: Send) -> None:
        self._send = send

    async def send(self, request: Request, options: dict[str, Any]) -> Response:
        return self._send(request, **options)

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - nothing else runs here

    async def wait(self, future: Future[Value]) -> Value:
        try:
            return future.result()
        except BaseException:
            # Ctrl-C, or the deadline of a row: whoever would complete it need not any more.
            future.cancel()
            raise

    async def close(self, response: Response) -> None:
        response.close()

    def reply(self, request: Request, headers: dict[str, str], content: bytes) -> Response:
        return _http_reply(request, headers, content)

    def watch(self, response: Response, watcher: Watcher) -> None:
        watch(response, watcher)


class _AsyncIo:
    def __init__(self, send: AsyncSend, reply: MakeReply) -> None:
        self._send = send
        self.reply = reply

    async def send(self, request: Request, options: dict[str, Any]) -> Response:
        return await self._send(request, **options)

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def wait(self, future: Future[Value]) -> Value:
        return await asyncio.wrap_future(future)

    async def close(self, response: Response) -> None:
        await response.aclose()

    def watch(self, response: Response, watcher: Watcher) -> None:
        watch_async(response, watcher)


def http_package(thing: Any) -> Any:
    """The package that an HTTP client or a request comes from: httpx or httpx2.

    Raises UsageError for one that is of neither.
    """
    for kind in type(thing).__mro__:
        name = kind.__module__.partition(".")[0]
        if name in ("httpx", "httpx2"):
            return importlib.import_module(name)
    raise UsageError(f"{type(thing).__name__} is no HTTP client of the openai package")


def _body_of(request: Request) -> dict[str, Any]:
    """The JSON object of a request, empty if there is none: whoever uses the body says what is wrong with it."""
    if not request.headers.get("content-type", "").startswith("application/json"):
        return {}
    try:
        body = orjson.loads(request.content)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}

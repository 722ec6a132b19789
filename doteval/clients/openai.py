"""OpenAI clients that share connections, replies and limits, try again, and say what they used.

`openai_client()` and `async_openai_client()` give real clients of the `openai` package. Each process
keeps one pool of connections for each set of client settings, so a client may be made anew for
every row. What the clients use is added to the meter of the row that called (`doteval.core.metering`) and
to totals that ``client.get_stats()`` tells. `instrument()` does the same for a client of another make.

What happens to a request on its way, from the outside in: it is answered from the cache, tried again,
held until the limits let it go, and recorded. Each is a module of its own: `caching`, `retries`,
`limits`, `recording`.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import inspect
import os
import threading
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from aiohttp import ClientSession
from openai import DEFAULT_MAX_RETRIES, AsyncOpenAI, DefaultAioHttpClient, DefaultHttpxClient, OpenAI
from openai.resources.chat import AsyncChat

from doteval.clients.cache.step import cached
from doteval.clients.direct import Direct, DirectChat
from doteval.clients.rate_limits.limiter import Limits
from doteval.clients.rate_limits.step import limited
from doteval.clients.retries import RETRY_SECONDS, RetryPolicy, retried
from doteval.clients.shared_state import shared_cache, shared_limiter, shared_prices
from doteval.clients.steps import Step, http_package, sent, stepped, stepped_async
from doteval.clients.usage_recording import Ledger, recorded
from doteval.core.client_config import Caching, client_config
from doteval.errors import UsageError

Client = TypeVar("Client", bound=OpenAI | AsyncOpenAI)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What a client does beyond what the SDK's does."""

    cache: Caching = None
    retries: RetryPolicy = RetryPolicy()  # noqa: RUF009 - it is frozen
    limits: Limits = Limits()  # noqa: RUF009 - it is frozen


class MeteredOpenAI(OpenAI):
    """An `openai.OpenAI` on the process's pool for its settings; takes what `openai.OpenAI` takes.

    Closing it leaves the pool to the other clients. An `http_client` of the caller's own is used
    as it is, with the same steps around it.
    """

    def __init__(self, *, http_client: Any = None, options: ClientOptions | None = None, **settings: Any) -> None:
        options, settings = _retries_taken_over(http_client, options, settings)
        pool = http_client or _pool(_Pool, settings, options)
        super().__init__(http_client=pool, **settings)
        self._ledger = _way_of(pool, options).ledger

    def get_stats(self) -> dict[str, Any]:
        """Totals of all clients of this process with these settings; `Ledger.stats` says what is in them."""
        return self._ledger.stats()


class MeteredAsyncOpenAI(AsyncOpenAI):
    """An `openai.AsyncOpenAI` on the process's pool for its settings; takes what `openai.AsyncOpenAI` takes.

    Its connections go through aiohttp, at half of httpx's cost a call. It may be made outside of an
    event loop and used on any: each loop has connections of its own, closed when the loop shuts
    down. Closing the client leaves the pool to the others.
    """

    def __init__(self, *, http_client: Any = None, options: ClientOptions | None = None, **settings: Any) -> None:
        options, settings = _retries_taken_over(http_client, options, settings)
        pool = http_client or _pool(_AsyncPool, settings, options)
        super().__init__(http_client=pool, **settings)
        way = _way_of(pool, options)
        self._ledger = way.ledger
        # A client of the caller's own may do more than ours.
        self._direct = Direct(self, way.step, pool.session) if isinstance(pool, _AsyncPool) else None

    @cached_property
    def chat(self) -> AsyncChat:
        """Chat completions, by the short way where nothing speaks against it."""
        return super().chat if self._direct is None else DirectChat(self, self._direct)

    async def post(self, path: str, *, cast_to: Any, body: Any = None, options: Any = None, **more: Any) -> Any:
        """``AsyncOpenAI.post``, by the short way where nothing speaks against it."""
        options = {} if options is None else options
        if self._direct is not None and not any(more.values()) and self._direct.takes(cast_to, body, options):
            return await self._direct.post(path, cast_to, body, options)
        return await super().post(path, cast_to=cast_to, body=body, options=options, **more)

    def get_stats(self) -> dict[str, Any]:
        """Totals of all clients of this process with these settings; `Ledger.stats` says what is in them."""
        return self._ledger.stats()


def openai_client(
    *,
    cache: Caching = None,
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    **settings: Any,
) -> MeteredOpenAI:
    """A client with the settings of `openai.OpenAI`, and its environment variables.

    `cache`: see `Caching`; a single call may differ, with ``extra_headers={"x-doteval-cache": "always"}``
    or ``"never"``. `max_retries`: tries after the first (6), none of which begins `retry_seconds` after
    the first. `requests_per_minute` and `tokens_per_minute` are for all worker processes together, by base
    URL and model; what the server says of its own limits is kept in any case.

    Raises openai.OpenAIError without credentials, UsageError for a price table that cannot be read.
    """
    return MeteredOpenAI(options=_options(cache, retry_seconds, requests_per_minute, tokens_per_minute), **settings)


def async_openai_client(
    *,
    cache: Caching = None,
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    **settings: Any,
) -> MeteredAsyncOpenAI:
    """A client with the settings of `openai.AsyncOpenAI`, and its environment variables; otherwise as `openai_client`.

    Raises openai.OpenAIError without credentials, UsageError for a price table that cannot be read.
    """
    options = _options(cache, retry_seconds, requests_per_minute, tokens_per_minute)
    return MeteredAsyncOpenAI(options=options, **settings)


def instrument(
    client: Client,
    *,
    cache: Caching = None,
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> Client:
    """Do for a client of the author's own what `openai_client` does, and give it a `get_stats()`. Returns the client.

    Works for every client class of the `openai` package. Its `max_retries` is taken over, so that the SDK
    does not try again as well. Copies of it (`with_options`) share its connections, and so the steps around
    them. A second call changes nothing.
    """
    options = _options(cache, retry_seconds, requests_per_minute, tokens_per_minute)
    # The SDK has no public name for the HTTP client of a client.
    http_client = client._client
    if http_client not in _ways:
        options = _with_retries(options, client.max_retries)
        client.max_retries = 0
    client.get_stats = _way_of(http_client, options).ledger.stats  # type: ignore[union-attr]
    return client


def _options(
    cache: Caching, retry_seconds: float, requests_per_minute: float | None, tokens_per_minute: float | None
) -> ClientOptions:
    if cache not in (None, True, False, "always"):
        raise UsageError(f"cache is {cache!r}", remedy='Give True, False or "always".')
    for name, value in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value!r}", remedy="Give a number above 0, or nothing for no limit.")
    return ClientOptions(cache, RetryPolicy(seconds=retry_seconds), Limits(requests_per_minute, tokens_per_minute))


def _retries_taken_over(
    http_client: Any, options: ClientOptions | None, settings: dict[str, Any]
) -> tuple[ClientOptions, dict[str, Any]]:
    """The SDK's own retries made ours. Not for copies of a client, which share its HTTP client."""
    options = options or ClientOptions()
    if http_client is not None and http_client in _ways:
        return options, settings
    return _with_retries(options, settings.get("max_retries", DEFAULT_MAX_RETRIES)), {**settings, "max_retries": 0}


def _with_retries(options: ClientOptions, max_retries: int) -> ClientOptions:
    # The SDK's default is meant for people who wait; rows by the thousand deserve more patience.
    if max_retries == DEFAULT_MAX_RETRIES:
        return options
    return replace(options, retries=replace(options.retries, retries=max_retries))


@dataclass(frozen=True, slots=True)
class _Way:
    """The steps around an HTTP client's `send`, and what they count."""

    ledger: Ledger
    step: Step


_ways: WeakKeyDictionary[Any, _Way] = WeakKeyDictionary()
_pools: dict[tuple[type, bytes], Any] = {}
_lock = threading.Lock()


def _way_of(http_client: Any, options: ClientOptions) -> _Way:
    """The way of an HTTP client, whose `send` goes through our steps from the first time on."""
    with _lock:
        way = _ways.get(http_client)
        if way is None:
            ledger = Ledger()
            way = _ways[http_client] = _Way(ledger, _steps(ledger, options, _errors_of(http_client)))
            through = stepped_async if inspect.iscoroutinefunction(http_client.send) else stepped
            http_client.send = through(http_client.send, way.step)
    return way


def _steps(ledger: Ledger, options: ClientOptions, transport_errors: tuple[type[Exception], ...]) -> Step:
    """From the inside out."""
    step = recorded(sent, ledger, shared_prices())
    step = limited(step, shared_limiter(), options.limits, ledger)
    step = retried(step, options.retries, ledger, transport_errors=transport_errors)
    return cached(step, shared_cache(), client_config().choice, options.cache, ledger)


def _errors_of(http_client: Any) -> tuple[type[Exception], ...]:
    """What the package of an HTTP client raises when there is no reply."""
    package = http_package(http_client)
    return package.TimeoutException, package.NetworkError, package.RemoteProtocolError, package.ProxyError


class _Pool(DefaultHttpxClient):
    """Connections that outlive the clients on them."""

    def close(self) -> None:
        """Leave them open, for the other clients."""

    def shut(self) -> None:
        super().close()


class _AsyncPool(DefaultAioHttpClient):
    """Connections that outlive the clients on them, apart for each event loop, to which sockets belong."""

    def __init__(self) -> None:
        # Read once: it takes as long as hundreds of calls, which would wait for it if an event loop did it.
        self._certificates = http_package(self).create_ssl_context()
        super().__init__(verify=self._certificates)
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}

    async def send(self, request: Any, **options: Any) -> Any:
        return await (await self._opened()).send(request, **options)

    async def session(self) -> ClientSession:
        """The aiohttp session whose connections `send` uses on this event loop."""
        # What httpx calls a transport is the SDK's bridge to aiohttp. It has no public name.
        transport = (await self._opened())._transport
        if not isinstance(transport.client, ClientSession):
            transport.client = transport.get_client()
        return cast(ClientSession, transport.client)

    async def _opened(self) -> Any:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            keeper = self._open_until_the_end_of(loop)
            opened = self._loops[loop] = await anext(keeper), keeper
        return opened[0]

    async def _open_until_the_end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        # Whoever ends a loop closes its unfinished generators, as asyncio.run does: that ends this one.
        http_client = DefaultAioHttpClient(verify=self._certificates)
        try:
            yield http_client
        finally:
            self._loops.pop(loop, None)
            await http_client.aclose()

    async def aclose(self) -> None:
        """Leave them open, for the other clients."""


def _pool(kind: type[Any], settings: dict[str, Any], options: ClientOptions) -> Any:
    # A digest: the settings hold the key.
    given = [*sorted((name, repr(value)) for name, value in settings.items()), repr(options), repr(client_config())]
    found = [(name, os.environ.get(name)) for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL")]
    key = (kind, hashlib.blake2b(repr((given, found)).encode(), digest_size=16).digest())
    with _lock:
        if key not in _pools:
            _pools[key] = kind()
        return _pools[key]


def _shut_pools() -> None:
    for pool in _pools.values():
        if isinstance(pool, _Pool):
            pool.shut()


atexit.register(_shut_pools)
# A forked process must not write to its parent's connections.
os.register_at_fork(after_in_child=_pools.clear)

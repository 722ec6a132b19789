"""OpenAI clients that share connections, cached replies and rate limits, retry, and record their usage.

`openai_client()` and `async_openai_client()` make real clients of the `openai` package. Each process keeps one
connection pool for each set of client settings, so a client may be made anew for every row. Usage is added to the meter
of the row that makes the call (`doteval.core.metering`) and to the totals of ``client.get_stats()``. `instrument()`
does the same for a client that the author made.

A request passes six steps, from the outside in: `tracing` has its span, `journal` notes the call or replays it,
`cache.step` answers it from the cache, `retries` tries again, `rate_limits.step` holds it back until it may be sent,
`usage_recording` records it.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import inspect
import os
import threading
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any, TypeVar, Unpack, cast
from weakref import WeakKeyDictionary

from aiohttp import ClientSession
from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultHttpxClient, OpenAI
from openai.resources.chat import AsyncChat

from doteval.clients.cache.step import cache_step
from doteval.clients.direct import DirectCalls, DirectChat
from doteval.clients.journal import journal_step
from doteval.clients.rate_limits.limiter import UserLimits
from doteval.clients.rate_limits.step import rate_limit_step
from doteval.clients.retries import RETRY_SECONDS, RetryPolicy, retry_step
from doteval.clients.sdk_settings import AsyncOpenAISettings, OpenAISettings
from doteval.clients.shared_state import shared_cache, shared_limiter, shared_prices
from doteval.clients.steps import Step, http_package, send_step, send_through, send_through_async
from doteval.clients.tracing import tracing_step
from doteval.clients.usage_recording import UsageTotals, usage_step
from doteval.core.client_config import Caching, client_config
from doteval.core.package_prices import import_prices
from doteval.errors import UsageError

__all__ = [
    "async_openai_client",
    "instrument",
    "openai_client",
]

Client = TypeVar("Client", bound=OpenAI | AsyncOpenAI)


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What a client adds to the SDK's."""

    cache: Caching = None
    cache_ignores: frozenset[str] = frozenset()
    retries: RetryPolicy = RetryPolicy()  # noqa: RUF009 - it is frozen
    limits: UserLimits = UserLimits()  # noqa: RUF009 - it is frozen


class MeteredOpenAI(OpenAI):
    """An `openai.OpenAI` on this process's connection pool for its settings; takes what the original takes.

    Closing it leaves the pool open for other clients. An `http_client` of the caller's is used as it is, with the same
    steps around it.
    """

    def __init__(self, *, http_client: Any = None, options: ClientOptions | None = None, **settings: Any) -> None:
        options, settings = _retries_taken_over(http_client, options, settings)
        pool = http_client or _pool(_Pool, settings, options)
        super().__init__(http_client=pool, **settings)
        self._totals = _instrumented(pool, options).totals

    def get_stats(self) -> dict[str, Any]:
        """The usage of all clients of this process with these settings; see `UsageTotals.stats`."""
        return self._totals.stats()


class MeteredAsyncOpenAI(AsyncOpenAI):
    """An `openai.AsyncOpenAI` on this process's connection pool for its settings; takes what the original takes.

    Its connections use aiohttp, at half of httpx's processor time a call. It may be made outside of an event loop and
    used on any: each loop has its own connections, closed when the loop shuts down. Closing the client leaves the pool
    open for other clients.
    """

    def __init__(self, *, http_client: Any = None, options: ClientOptions | None = None, **settings: Any) -> None:
        options, settings = _retries_taken_over(http_client, options, settings)
        pool = http_client or _pool(_AsyncPool, settings, options)
        super().__init__(http_client=pool, **settings)
        instrumented = _instrumented(pool, options)
        self._totals = instrumented.totals
        # An HTTP client of the caller's may do things that a direct call would skip.
        self._direct = DirectCalls(self, instrumented.step, pool.session) if isinstance(pool, _AsyncPool) else None

    @cached_property
    def chat(self) -> AsyncChat:
        """Chat completions, as direct calls where possible."""
        return super().chat if self._direct is None else DirectChat(self, self._direct)

    async def post(self, path: str, *, cast_to: Any, body: Any = None, options: Any = None, **more: Any) -> Any:
        """``AsyncOpenAI.post``, as a direct call where possible."""
        options = {} if options is None else options
        if self._direct is not None and not any(more.values()) and self._direct.accepts(cast_to, body, options):
            return await self._direct.post(path, cast_to, body, options)
        return await super().post(path, cast_to=cast_to, body=body, options=options, **more)

    def get_stats(self) -> dict[str, Any]:
        """The usage of all clients of this process with these settings; see `UsageTotals.stats`."""
        return self._totals.stats()


def openai_client(
    *,
    cache: Caching = None,
    cache_ignores: Collection[str] = (),
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    **settings: Unpack[OpenAISettings],
) -> MeteredOpenAI:
    """Make a client with the settings and environment variables of `openai.OpenAI`.

    `cache`: see `Caching`; ``extra_headers={"x-doteval-cache": "always"}`` or ``"never"`` overrides it for one call.
    `cache_ignores`: headers that may differ in requests that share a reply, such as a token that is renewed.
    `max_retries`: tries after the first (6 by default), none of which begins more than `retry_seconds` after the first.
    `requests_per_minute` and `tokens_per_minute`: limits for all worker processes together, by base URL and model;
    limits that the server reports hold in any case.

    ``openai_client(base_url="http://localhost:8000/v1", requests_per_minute=600)``

    Raises openai.OpenAIError without credentials, UsageError for a price table that cannot be read.

    >>> from doteval.mock_openai import MockOpenAI
    >>> with MockOpenAI() as server, openai_client(base_url=server.base_url, api_key="any") as client:
    ...     reply = client.chat.completions.create(model="mock", messages=[{"role": "user", "content": "Hello"}])
    ...     client.get_stats()["requests"]
    1
    """
    options = _options(cache, cache_ignores, retry_seconds, requests_per_minute, tokens_per_minute)
    return MeteredOpenAI(options=options, **settings)


def async_openai_client(
    *,
    cache: Caching = None,
    cache_ignores: Collection[str] = (),
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
    **settings: Unpack[AsyncOpenAISettings],
) -> MeteredAsyncOpenAI:
    """Make a client with the settings and environment variables of `openai.AsyncOpenAI`; otherwise as `openai_client`.

    Raises openai.OpenAIError without credentials, UsageError for a price table that cannot be read.

    >>> client = async_openai_client(api_key="any", requests_per_minute=600)
    >>> asyncio.run(client.close())
    """
    options = _options(cache, cache_ignores, retry_seconds, requests_per_minute, tokens_per_minute)
    return MeteredAsyncOpenAI(options=options, **settings)


def instrument(
    client: Client,
    *,
    cache: Caching = None,
    cache_ignores: Collection[str] = (),
    retry_seconds: float = RETRY_SECONDS,
    requests_per_minute: float | None = None,
    tokens_per_minute: float | None = None,
) -> Client:
    """Add what `openai_client` does to a client that the author made, and a `get_stats()`. Returns the client.

    Works for every client class of the `openai` package: ``client = instrument(AzureOpenAI(), cache=True)``. The
    client's `max_retries` (2 if it was made without) is taken over, so that the SDK does not retry as well. Copies
    (`with_options`) share its connections and the steps around them. A second call changes nothing.

    >>> client = OpenAI(api_key="any")
    >>> instrument(client, cache=True) is client
    True
    """
    options = _options(cache, cache_ignores, retry_seconds, requests_per_minute, tokens_per_minute)
    # The SDK has no public name for a client's HTTP client.
    http_client = client._client
    if http_client not in _instrumented_clients:
        options = _with_retries(options, client.max_retries)
        client.max_retries = 0
    client.get_stats = _instrumented(http_client, options).totals.stats  # type: ignore[union-attr]
    return client


def _options(
    cache: Caching,
    cache_ignores: Collection[str],
    retry_seconds: float,
    requests_per_minute: float | None,
    tokens_per_minute: float | None,
) -> ClientOptions:
    if cache not in (None, True, False, "always"):
        raise UsageError(f"cache is {cache!r}", remedy='Give True, False or "always".')
    if isinstance(cache_ignores, str):
        raise UsageError(f"cache_ignores is {cache_ignores!r}", remedy='Give a list of headers: ["authorization"].')
    for name, value in (("requests_per_minute", requests_per_minute), ("tokens_per_minute", tokens_per_minute)):
        if value is not None and not value > 0:
            raise UsageError(f"{name} is {value!r}", remedy="Give a number above 0, or None for no limit.")
    ignored = frozenset(name.lower() for name in cache_ignores)
    limits = UserLimits(requests_per_minute, tokens_per_minute)
    return ClientOptions(cache, ignored, RetryPolicy(seconds=retry_seconds), limits)


def _retries_taken_over(
    http_client: Any, options: ClientOptions | None, settings: dict[str, Any]
) -> tuple[ClientOptions, dict[str, Any]]:
    """Move the SDK's retries to the retry step, but for copies of a client, whose HTTP client has that step already."""
    options = options or ClientOptions()
    if http_client is not None and http_client in _instrumented_clients:
        return options, settings
    if "max_retries" in settings:
        options = _with_retries(options, settings["max_retries"])
    return options, {**settings, "max_retries": 0}


def _with_retries(options: ClientOptions, max_retries: int) -> ClientOptions:
    return replace(options, retries=replace(options.retries, retries=max_retries))


@dataclass(frozen=True, slots=True)
class _Instrumented:
    """The steps around an HTTP client's `send`, and the usage that they record."""

    totals: UsageTotals
    step: Step


_instrumented_clients: WeakKeyDictionary[Any, _Instrumented] = WeakKeyDictionary()
_pools: dict[tuple[type, bytes], Any] = {}
_lock = threading.Lock()


def _instrumented(http_client: Any, options: ClientOptions) -> _Instrumented:
    """Put the steps around the `send` of an HTTP client, unless that was done before."""
    with _lock:
        instrumented = _instrumented_clients.get(http_client)
        if instrumented is None:
            totals = UsageTotals()
            if client_config().prices is None and str(getattr(http_client, "base_url", "")).startswith("https://"):
                # It takes a third of a second: now, not while replies are coming in.
                import_prices()
            instrumented = _Instrumented(totals, _steps(totals, options, _transport_errors(http_client)))
            _instrumented_clients[http_client] = instrumented
            # A cookie that one row's reply sets would be a header of the next row's request.
            http_client.cookies.jar.set_policy(_GivenCookies())
            through = send_through_async if inspect.iscoroutinefunction(http_client.send) else send_through
            http_client.send = through(http_client.send, instrumented.step)
    return instrumented


def _steps(totals: UsageTotals, options: ClientOptions, transport_errors: tuple[type[Exception], ...]) -> Step:
    """The steps, built from the inside out."""
    step = usage_step(send_step, totals, shared_prices())
    step = rate_limit_step(step, shared_limiter(), options.limits, totals)
    step = retry_step(step, options.retries, totals, transport_errors=transport_errors)
    cache, choice = shared_cache(), client_config().choice
    step = cache_step(step, cache, choice, options.cache, totals, ignored=options.cache_ignores)
    return tracing_step(journal_step(step, options.cache_ignores), options.cache_ignores)


def _transport_errors(http_client: Any) -> tuple[type[Exception], ...]:
    """The errors that the package of an HTTP client raises if there is no reply."""
    package = http_package(http_client)
    # A DecodingError is a compressed body that was garbled on its way.
    return (
        package.TimeoutException,
        package.NetworkError,
        package.RemoteProtocolError,
        package.ProxyError,
        package.DecodingError,
    )


class _GivenCookies(DefaultCookiePolicy):
    """Sends the cookies that the author gave, and keeps none that servers set."""

    def set_ok(self, cookie: Cookie, request: Any) -> bool:  # noqa: ARG002 - it keeps none
        return False


class _Pool(DefaultHttpxClient):
    """A connection pool that outlives the clients that use it."""

    def close(self) -> None:
        """Leave the connections open for other clients."""

    def shut(self) -> None:
        super().close()


class _AsyncPool(DefaultAioHttpClient):
    """A connection pool for each event loop, since sockets belong to a loop. It outlives the clients that use it."""

    def __init__(self) -> None:
        # Read once, and not on an event loop: it takes as long as hundreds of calls, which would wait for it.
        self._certificates = http_package(self).create_ssl_context()
        super().__init__(verify=self._certificates)
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}

    async def send(self, request: Any, **options: Any) -> Any:
        return await (await self._opened()).send(request, **options)

    async def session(self) -> ClientSession:
        """The aiohttp session whose connections `send` uses on this event loop."""
        # The httpx transport is the SDK's bridge to aiohttp, which has no public name.
        transport = (await self._opened())._transport
        if not isinstance(transport.client, ClientSession):
            transport.client = transport.get_client()
        return cast(ClientSession, transport.client)

    async def _opened(self) -> Any:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            generator = self._open_until_shutdown(loop)
            opened = self._loops[loop] = await anext(generator), generator
        return opened[0]

    async def _open_until_shutdown(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        # asyncio.run, and any runner that calls shutdown_asyncgens, closes this generator as the loop ends.
        http_client = DefaultAioHttpClient(verify=self._certificates)
        try:
            yield http_client
        finally:
            self._loops.pop(loop, None)
            await http_client.aclose()

    async def aclose(self) -> None:
        """Leave the connections open for other clients."""


def _pool(kind: type[Any], settings: dict[str, Any], options: ClientOptions) -> Any:
    # A digest, because the settings hold the API key.
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

"""OpenAI clients that share connections and say what they used.

`openai_client()` and `async_openai_client()` give real clients of the `openai` package. Each process
keeps one pool of connections for each set of client settings, so a client may be made anew for
every row. What the clients use is added to the meter of the row that called (`doteval.metering`) and
to totals that ``client.get_stats()`` tells. `instrument()` does the same for a client of another make.
"""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import inspect
import os
import threading
from collections.abc import AsyncGenerator
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from openai import AsyncOpenAI, DefaultAioHttpClient, DefaultHttpxClient, OpenAI

from doteval.prices import PriceTable
from doteval.resources.exchange import sent, stepped, stepped_async
from doteval.resources.recording import Ledger, recorded

Client = TypeVar("Client", bound=OpenAI | AsyncOpenAI)


class MeteredOpenAI(OpenAI):
    """An `openai.OpenAI` on the process's pool for its settings; takes what `openai.OpenAI` takes.

    Closing it leaves the pool to the other clients. An `http_client` of the caller's own is used
    as it is, and recorded too.
    """

    def __init__(self, *, http_client: Any = None, **settings: Any) -> None:
        pool = http_client or _pool(_Pool, settings)
        super().__init__(http_client=pool, **settings)
        self._ledger = _ledger_of(pool)

    def get_stats(self) -> dict[str, Any]:
        """Totals of all clients of this process with these settings; `Ledger.stats` says what is in them."""
        return self._ledger.stats()


class MeteredAsyncOpenAI(AsyncOpenAI):
    """An `openai.AsyncOpenAI` on the process's pool for its settings; takes what `openai.AsyncOpenAI` takes.

    Its connections go through aiohttp, at half of httpx's cost a call. It may be made outside of an
    event loop and used on any: each loop has connections of its own, closed when the loop shuts
    down. Closing the client leaves the pool to the others.
    """

    def __init__(self, *, http_client: Any = None, **settings: Any) -> None:
        pool = http_client or _pool(_AsyncPool, settings)
        super().__init__(http_client=pool, **settings)
        self._ledger = _ledger_of(pool)

    def get_stats(self) -> dict[str, Any]:
        """Totals of all clients of this process with these settings; `Ledger.stats` says what is in them."""
        return self._ledger.stats()


def openai_client(**settings: Any) -> MeteredOpenAI:
    """A client with the settings of `openai.OpenAI`, and its environment variables.

    Raises openai.OpenAIError without credentials.
    """
    return MeteredOpenAI(**settings)


def async_openai_client(**settings: Any) -> MeteredAsyncOpenAI:
    """A client with the settings of `openai.AsyncOpenAI`, and its environment variables.

    Raises openai.OpenAIError without credentials.
    """
    return MeteredAsyncOpenAI(**settings)


def instrument(client: Client) -> Client:
    """Record what a client of the author's own uses, and give it a `get_stats()`. Returns the client.

    Works for every client class of the `openai` package. Copies of it (`with_options`) share its
    connections, and so are recorded with it. A second call changes nothing.
    """
    # The SDK has no public name for the HTTP client of a client.
    ledger = _ledger_of(client._client)
    client.get_stats = ledger.stats  # type: ignore[union-attr]
    return client


_ledgers: WeakKeyDictionary[Any, Ledger] = WeakKeyDictionary()
_pools: dict[tuple[type, bytes], Any] = {}
_lock = threading.Lock()


def _ledger_of(http_client: Any) -> Ledger:
    """The ledger of an HTTP client, whose `send` is wrapped the first time. More steps would go around here."""
    with _lock:
        ledger = _ledgers.get(http_client)
        if ledger is None:
            ledger = _ledgers[http_client] = Ledger()
            step = recorded(sent, ledger, PriceTable())
            through = stepped_async if inspect.iscoroutinefunction(http_client.send) else stepped
            http_client.send = through(http_client.send, step)
    return ledger


class _Pool(DefaultHttpxClient):
    """Connections that outlive the clients on them."""

    def close(self) -> None:
        """Leave them open, for the other clients."""

    def shut(self) -> None:
        super().close()


class _AsyncPool(DefaultAioHttpClient):
    """Connections that outlive the clients on them, apart for each event loop, to which sockets belong."""

    def __init__(self) -> None:
        super().__init__()
        self._loops: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[Any, None]]] = {}

    async def send(self, request: Any, **options: Any) -> Any:
        loop = asyncio.get_running_loop()
        opened = self._loops.get(loop)
        if opened is None:
            keeper = self._open_until_the_end_of(loop)
            opened = self._loops[loop] = await anext(keeper), keeper
        return await opened[0].send(request, **options)

    async def _open_until_the_end_of(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[Any, None]:
        # Whoever ends a loop closes its unfinished generators, as asyncio.run does: that ends this one.
        http_client = DefaultAioHttpClient()
        try:
            yield http_client
        finally:
            self._loops.pop(loop, None)
            await http_client.aclose()

    async def aclose(self) -> None:
        """Leave them open, for the other clients."""


def _pool(kind: type[Any], settings: dict[str, Any]) -> Any:
    # A digest: the settings hold the key.
    given = sorted((name, repr(value)) for name, value in settings.items())
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

"""Answers from the cache: the outermost step.

Only successful, complete replies are kept. A reply that is read as it comes is kept when it was read
to its end, and given as a stream again.
"""

from __future__ import annotations

import orjson

from doteval.clients.cache.keys import ALWAYS, CACHE_HEADER, NEVER, is_repeatable, key_of, may_be_cached
from doteval.clients.cache.reply_cache import ReplyCache, StoredReply
from doteval.clients.steps import Exchange, Response, Step
from doteval.clients.streams import is_done
from doteval.clients.usage_recording import Ledger
from doteval.core.client_config import CacheChoice, Caching
from doteval.core.results import Usage
from doteval.errors import ResourceError

_UNFINISHED = frozenset({"failed", "in_progress", "queued", "cancelled"})


def cached(step: Step, cache: ReplyCache, default: CacheChoice, wish: Caching, ledger: Ledger) -> Step:
    """The step that asks the cache first, if that is wanted for the row.

    `default` holds where the row's submission has said nothing; `wish` is the client's own, to which a single
    call may make an exception.
    """

    async def ask_cache(exchange: Exchange) -> Response:
        exception = exchange.request.headers.pop(CACHE_HEADER, None)
        choice = (exchange.meter and exchange.meter.cache) or default
        if exception == NEVER or not choice.is_wanted_by(wish):
            return await step(exchange)
        wanted = may_be_cached(exchange) if ALWAYS in (exception, wish) else is_repeatable(exchange)
        if not wanted:
            return await step(exchange)
        key = key_of(exchange)
        future = cache.ask(key, choice.since)
        try:
            found = await exchange.io.wait(future)
        except ResourceError:
            # The cache has said so in the log. A row is worth more than the cache.
            return await step(exchange)
        except BaseException:
            cache.abandon(key, future)
            raise
        if found is not None:
            ledger.add(Usage(exchange.model, requests=1, cache_hits=1), exchange.meter)
            return _replay(exchange, found)
        ledger.add(Usage(exchange.model, cache_misses=1), exchange.meter)
        return await _fetch(exchange, step, cache, key)

    return ask_cache


async def _fetch(exchange: Exchange, step: Step, cache: ReplyCache, key: bytes) -> Response:
    """Make the request for everybody who waits for it."""
    try:
        response = await step(exchange)
    except BaseException:
        cache.release(key)
        raise
    if response.status_code != 200:
        cache.release(key)
    elif exchange.streamed:
        exchange.io.watch(response, _Keeper(cache, key, response.headers.get("content-type", "")))
    else:
        _keep(cache, key, response.headers.get("content-type", ""), response.content)
    return response


def _keep(cache: ReplyCache, key: bytes, content_type: str, content: bytes) -> None:
    if _is_complete(content_type, content):
        cache.put(key, StoredReply(content_type, content))
    else:
        cache.release(key)


class _Keeper:
    """Keeps a reply that the caller reads."""

    def __init__(self, cache: ReplyCache, key: bytes, content_type: str) -> None:
        self._cache = cache
        self._key = key
        self._content_type = content_type
        self._chunks: list[bytes] = []

    def feed(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def ended(self) -> None:
        _keep(self._cache, self._key, self._content_type, b"".join(self._chunks))

    def broke(self) -> None:
        self.left()

    def left(self) -> None:
        self._cache.release(self._key)


def _is_complete(content_type: str, content: bytes) -> bool:
    if content_type.startswith("text/event-stream"):
        ended = is_done(content) or b'"response.completed"' in content
        return ended and b"event: error" not in content
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return not isinstance(body, dict) or (body.get("status") not in _UNFINISHED and body.get("error") is None)


def _replay(exchange: Exchange, found: StoredReply) -> Response:
    return exchange.io.reply(exchange.request, {"content-type": found.content_type, CACHE_HEADER: "hit"}, found.content)

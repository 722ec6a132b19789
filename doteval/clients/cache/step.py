"""The outermost request step, which answers from the reply cache.

Only successful, complete replies are stored. A streamed reply is stored once the caller has read it to the end, and is
streamed again when it is answered from the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Collection

from doteval.clients.bad_replies import is_event_stream
from doteval.clients.cache.completeness import is_worth_keeping
from doteval.clients.cache.keys import ALWAYS, CACHE_HEADER, NEVER, cache_key, is_cacheable, is_repeatable
from doteval.clients.cache.reply_cache import ReplyCache, StoredReply
from doteval.clients.steps import ApiCall, Response, Step
from doteval.clients.streams import StreamObserver
from doteval.clients.usage_recording import UsageTotals
from doteval.core.call_journal import CallSource
from doteval.core.client_config import CacheChoice, Caching
from doteval.core.results import Usage
from doteval.errors import ResourceError


def cache_step(
    step: Step,
    cache: ReplyCache,
    default: CacheChoice,
    caching: Caching,
    totals: UsageTotals,
    *,
    ignored: Collection[str] = (),
) -> Step:
    """A step around `step` that looks into the cache first.

    `default`: the choice where the submission of the row made none; `caching`: the client's setting, which a header
    may override for a single call; `ignored`: headers that do not count, in lower case.
    """

    async def look_up(call: ApiCall) -> Response:
        override = call.request.headers.pop(CACHE_HEADER, None)
        choice = (call.meter and call.meter.cache) or default
        if override == NEVER or not choice.is_wanted_by(caching):
            return await step(call)
        wanted = is_cacheable(call) if ALWAYS in (override, caching) else is_repeatable(call)
        if not wanted:
            return await step(call)
        key = cache_key(call, ignored)
        future = cache.ask(key, choice.since)
        try:
            found = await call.io.wait(future)
        except ResourceError:
            # The cache has logged a warning. The row goes on without it.
            return await step(call)
        except BaseException:
            cache.cancel(key, future)
            raise
        if found is not None:
            call.source = CallSource.CACHE
            totals.add(Usage(call.model, requests=1, cache_hits=1, judge=call.judge), call.meter)
            _note_use(call, cache, key)
            return _stored_response(call, found)
        totals.add(Usage(call.model, cache_misses=1, judge=call.judge), call.meter)
        return await _fetch(call, step, cache, key)

    return look_up


async def _fetch(call: ApiCall, step: Step, cache: ReplyCache, key: bytes) -> Response:
    """Make the request on behalf of all callers that wait for the reply."""
    try:
        response = await step(call)
    except BaseException:
        cache.release(key)
        raise
    if response.status_code != 200:
        cache.release(key)
    elif call.streamed and not response.is_closed:
        events = is_event_stream(call, response)
        kind = response.headers.get("content-type", "")
        call.io.observe(response, _ReplyCollector(call, cache, key, kind, events=events), events=events)
    else:
        _store(call, cache, key, response.headers.get("content-type", ""), response.content, events=False)
    return response


def _store(call: ApiCall, cache: ReplyCache, key: bytes, content_type: str, content: bytes, *, events: bool) -> None:
    if is_worth_keeping(content, events=events):
        cache.put(key, StoredReply(content_type, content))
        _note_use(call, cache, key)
    else:
        cache.release(key)


def _note_use(call: ApiCall, cache: ReplyCache, key: bytes) -> None:
    """Note that the row has used a reply that the cache holds, which is dropped if the row fails because of it."""
    if call.meter is not None:
        call.meter.note_cached(functools.partial(cache.drop, key))


class _ReplyCollector(StreamObserver):
    """Collects a streamed reply as the caller reads it, and stores it at its end."""

    def __init__(self, call: ApiCall, cache: ReplyCache, key: bytes, content_type: str, *, events: bool) -> None:
        self._call = call
        self._cache = cache
        self._key = key
        self._content_type = content_type
        self._events = events
        self._chunks: list[bytes] = []

    def on_chunk(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def on_end(self) -> None:
        content = b"".join(self._chunks)
        _store(self._call, self._cache, self._key, self._content_type, content, events=self._events)

    def on_error(self) -> None:
        self._cache.release(self._key)

    def on_abandoned(self) -> None:
        self._cache.release(self._key)


def _stored_response(call: ApiCall, found: StoredReply) -> Response:
    return call.io.reply(call.request, {"content-type": found.content_type, CACHE_HEADER: "hit"}, found.content)

"""Decides which requests may be answered from the cache, and which are the same.

A key is a digest of everything that may change the answer: method, URL, headers, the whole body in any order of its
names, and the sample of the row, so that ``--epochs 5`` asks five times. Any header may choose the provider behind a
gateway, and so may an API key, so that all count but those of `WITHOUT_EFFECT`. Keys are digested once more, with a
secret of the storage, before they are stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection

import orjson

from doteval.clients.steps import ApiCall
from doteval.core import lenient_json

CACHE_HEADER = "x-doteval-cache"
"""A header for a single call, in ``extra_headers``: ``always`` or ``never``. It is not sent to the server."""

ALWAYS = "always"
NEVER = "never"

SERVER_HEADER = "x-doteval-server"
"""A header that names the server behind a local port. It replaces host and port in the key, since another server may
get the same port tomorrow."""

WITHOUT_EFFECT = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "idempotency-key",
        "traceparent",
        "tracestate",
        "user-agent",
        "x-client-request-id",
        "x-request-id",
    }
)
"""Headers that say how a request travels or which request it is, and cannot change what a model replies. ``host`` does
not count either if it is the URL's, nor do the SDK's ``x-stainless-*``, which describe the machine."""

_ANSWERED_ALIKE = ("/embeddings", "/moderations")


def is_repeatable(call: ApiCall) -> bool:
    """Whether its parameters ask for the same answer every time: temperature 0, a seed, embeddings."""
    body = call.body
    if not is_cacheable(call):
        return False
    temperature = body.get("temperature")
    return (
        str(call.request.url.path).endswith(_ANSWERED_ALIKE)
        or (temperature == 0 and not isinstance(temperature, bool))
        or body.get("seed") is not None
    )


def is_cacheable(call: ApiCall) -> bool:
    """Whether its reply can be cached at all, if the author asks for it."""
    return bool(call.body) and call.request.method == "POST" and not call.body.get("background")


def cache_key(call: ApiCall, ignored: Collection[str] = ()) -> bytes:
    """The key of a request: a digest of 32 bytes. `ignored`: names of further headers that do not count."""
    request, scope = call.request, call.meter and call.meter.scope
    url = request.url
    netloc = url.netloc.decode()
    headers = sorted(
        (name.lower(), value)
        for name, value in request.headers.items()
        if may_matter(name.lower(), value, netloc) and name.lower() not in ignored
    )
    sample = scope.sample if scope else 0
    where = [] if SERVER_HEADER in request.headers else [url.scheme, netloc]
    parts = [request.method, where, url.path, sorted(url.params.multi_items()), headers, sample]
    digest = hashlib.blake2b(orjson.dumps(parts), digest_size=32)
    digest.update(lenient_json.dumps_sorted(call.body))
    return digest.digest()


def may_matter(name: str, value: str, netloc: str) -> bool:
    """Whether a header, its name in lower case, may change the reply. `netloc`: that of the URL."""
    if name == "host":
        return value != netloc
    return name not in WITHOUT_EFFECT and not name.startswith("x-stainless-")

"""Which requests may be answered from the cache, and what makes two of them the same.

A key is a digest of everything that changes the answer: method, URL, the whole body whatever the order
of its names, and the sample of the row, so that ``--epochs 5`` asks five times. Headers are left out but
for those that choose another API: others hold keys, and none of them changes what a model says.
"""

from __future__ import annotations

import hashlib

import orjson

from doteval.clients.steps import Exchange

CACHE_HEADER = "x-doteval-cache"
"""A header of a single call, for ``extra_headers``: ``always`` or ``never``. It is not sent."""

ALWAYS = "always"
NEVER = "never"

SERVER_HEADER = "x-doteval-server"
"""A header that names the server behind a local port, which may be another server's tomorrow: it counts instead."""

_ANSWERED_ALIKE = ("/embeddings", "/moderations")
_API_HEADERS = ("openai-beta", "anthropic-version", "anthropic-beta")
_SECRETS = ("key", "token", "secret", "password", "signature", "sig")


def is_repeatable(exchange: Exchange) -> bool:
    """Whether the same request is to get the same answer, by its parameters: temperature 0, a seed, embeddings."""
    body = exchange.body
    if not body or exchange.request.method != "POST" or body.get("background"):
        return False
    temperature = body.get("temperature")
    return (
        str(exchange.request.url.path).endswith(_ANSWERED_ALIKE)
        or (temperature == 0 and not isinstance(temperature, bool))
        or body.get("seed") is not None
    )


def may_be_cached(exchange: Exchange) -> bool:
    """Whether it can be cached at all, if the author asks for it."""
    return bool(exchange.body) and exchange.request.method == "POST" and not exchange.body.get("background")


def key_of(exchange: Exchange) -> bytes:
    """The key of a request: 32 bytes, from which nothing can be told."""
    request, place = exchange.request, exchange.meter and exchange.meter.place
    url = request.url
    parameters = sorted(
        (name, value)
        for name, value in url.params.multi_items()
        if not any(secret in name.lower() for secret in _SECRETS)
    )
    headers = [request.headers.get(name, "") for name in _API_HEADERS]
    sample = place.sample if place else 0
    server = request.headers.get(SERVER_HEADER)
    where = [server] if server else [url.scheme, url.host, url.port]
    parts = [request.method, *where, url.path, parameters, headers, sample]
    digest = hashlib.blake2b(orjson.dumps(parts), digest_size=32)
    digest.update(orjson.dumps(exchange.body, option=orjson.OPT_SORT_KEYS))
    return digest.digest()

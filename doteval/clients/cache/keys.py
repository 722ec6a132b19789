"""Decides which requests may be answered from the cache, and which are the same.

A key is a digest of everything that changes the answer: method, URL, the whole body in any order of its names, and the
sample of the row, so that ``--epochs 5`` asks five times. Of the headers only those count that select another API;
others may hold secrets, and do not change what a model replies.
"""

from __future__ import annotations

import hashlib

import orjson

from doteval.clients.steps import ApiCall

CACHE_HEADER = "x-doteval-cache"
"""A header for a single call, in ``extra_headers``: ``always`` or ``never``. It is not sent to the server."""

ALWAYS = "always"
NEVER = "never"

SERVER_HEADER = "x-doteval-server"
"""A header that names the server behind a local port. It replaces host and port in the key, since another server may
get the same port tomorrow."""

_ANSWERED_ALIKE = ("/embeddings", "/moderations")
_API_HEADERS = ("openai-beta", "anthropic-version", "anthropic-beta")
_SECRETS = ("key", "token", "secret", "password", "signature", "sig")


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


def cache_key(call: ApiCall) -> bytes:
    """The key of a request: a digest of 32 bytes, which reveals nothing of it."""
    request, scope = call.request, call.meter and call.meter.scope
    url = request.url
    parameters = sorted(
        (name, value)
        for name, value in url.params.multi_items()
        if not any(secret in name.lower() for secret in _SECRETS)
    )
    headers = [request.headers.get(name, "") for name in _API_HEADERS]
    sample = scope.sample if scope else 0
    server = request.headers.get(SERVER_HEADER)
    where = [server] if server else [url.scheme, url.host, url.port]
    parts = [request.method, *where, url.path, parameters, headers, sample]
    digest = hashlib.blake2b(orjson.dumps(parts), digest_size=32)
    digest.update(orjson.dumps(call.body, option=orjson.OPT_SORT_KEYS))
    return digest.digest()

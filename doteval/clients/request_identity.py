"""Tells which requests ask the same, and which secrets they carry, from their URL and headers.

Both are worked out once for all requests that differ in their bodies only, as those of an evaluation do.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl, quote, urlsplit

import orjson

from doteval.clients.cache.keys import SERVER_HEADER, may_matter
from doteval.clients.steps import Request
from doteval.core.redaction import HIDDEN, hide_in_text, is_secret_parameter

# Shorter values, such as the "unused" key of a server that needs none, are words that bodies may hold as well.
_SHORTEST_SECRET = 8
_MOST_REMEMBERED = 256
_ENDPOINTS = ("/chat/completions", "/completions", "/responses", "/embeddings", "/moderations", "/files", "/batches")
_HIDDEN = HIDDEN.encode()


class RequestIdentity:
    """What a request is but for its body.

    endpoint: the end of the path, "" if it is none of those known: the path of a gateway may hold a key.
    parts: method, URL and the headers that may change the reply, as bytes that are equal if they are.
    """

    __slots__ = ("_secrets", "endpoint", "parts")

    def __init__(self, method: str, url: str, headers: Collection[tuple[str, str]], ignored: Collection[str]) -> None:
        split = urlsplit(url)
        self.endpoint = next((end for end in _ENDPOINTS if split.path.endswith(end)), "")
        counted = sorted(
            (name, value)
            for name, value in headers
            if may_matter(name, value, split.netloc.rpartition("@")[2]) and name not in ignored
        )
        has_server = any(name == SERVER_HEADER for name, _ in headers)
        where = [] if has_server else [split.scheme, split.netloc]
        parts = (method, where, split.path, sorted(parse_qsl(split.query)), counted)
        self.parts = repr(parts).encode(errors="backslashreplace")
        found = [split.username or "", split.password or ""]
        found += [value for name, value in parse_qsl(split.query) if is_secret_parameter(name)]
        for name, value in headers:
            if name == "cookie" or is_secret_parameter(name):
                # "Bearer sk-..." and "a=1; session=..." hold the secret as a word.
                found += [value, *value.replace(";", " ").replace("=", " ").split()]
        self._secrets = _as_quoted(found)

    @classmethod
    def of(cls, request: Request, ignored: frozenset[str]) -> RequestIdentity:
        """The identity of an HTTP request, before any step has changed it.

        ignored: headers that do not count, in lower case.
        """
        # Direct requests to one path have the same URL and headers; see `doteval.clients.direct`.
        shared: dict[frozenset[str], RequestIdentity] = getattr(request, "identities", {})
        identity = shared.get(ignored)
        if identity is None:
            # The length of the body would make each request another one.
            headers = tuple(each for each in request.headers.items() if each[0] != "content-length")
            identity = shared[ignored] = _remembered(request.method, str(request.url), headers, ignored)
        return identity

    def hidden_in(self, content: bytes, more: Collection[str] = ()) -> bytes:
        """The same bytes with `***` in place of each secret. more: secrets that do not belong to URL and headers."""
        for secret in (*self._secrets, *_as_quoted(more)) if more else self._secrets:
            if secret in content:
                content = content.replace(secret, _HIDDEN)
        return content

    def hidden_in_text(self, text: str, more: Collection[str] = ()) -> str:
        """The same text with `***` in place of each secret, and of those of other URLs in it."""
        return hide_in_text(self.hidden_in(text.encode(errors="replace"), more).decode())


@functools.lru_cache(maxsize=_MOST_REMEMBERED)
def _remembered(
    method: str, url: str, headers: tuple[tuple[str, str], ...], ignored: frozenset[str]
) -> RequestIdentity:
    return RequestIdentity(method, url, [(name.lower(), value) for name, value in headers], ignored)


def _as_quoted(secrets: Iterable[str]) -> tuple[bytes, ...]:
    """Secrets as bodies may quote them: as they are, in JSON, or in a URL; the longest first."""
    forms = {form for each in secrets if len(each) >= _SHORTEST_SECRET for form in _forms(each)}
    return tuple(sorted((form.encode() for form in forms), key=len, reverse=True))


def _forms(secret: str) -> set[str]:
    text = secret.encode(errors="replace").decode()
    return {text, orjson.dumps(text).decode()[1:-1], quote(text, safe="")}

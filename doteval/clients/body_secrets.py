"""Finds the secrets that authors put into the bodies of requests: keys of tools, of data sources, in URLs.

What rows say is not looked at: `messages`, `input` and `prompt`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from doteval.core.redaction import is_secret_name, is_secret_parameter

_OF_ROWS = frozenset({"messages", "input", "prompt", "metadata"})
# All texts in an object of such a name are secrets, as in {"headers": {"x-team": "..."}} of an MCP tool.
_OBJECTS = frozenset({"headers", "authentication", "credentials"})
# Most bodies hold none of these, and are not looked at further. In lower case.
_SIGNS = (b"auth", b'key"', b'token"', b"secret", b"passw", b'pwd"', b"credential", b'headers"', b'url"')


def secrets_of_body(body: Mapping[str, Any], content: bytes) -> frozenset[str]:
    """The secrets in a request. body: its JSON object; content: the same as bytes.

    >>> body = {"model": "m", "tools": [{"type": "mcp", "authorization": "a-token", "headers": {"x-team": "blue"}}]}
    >>> sorted(secrets_of_body(body, b'"authorization"'))
    ['a-token', 'blue']
    """
    lowered = content.lower()
    for sign in _SIGNS:
        if sign in lowered:
            looked_at = {name: value for name, value in body.items() if name not in _OF_ROWS}
            return frozenset(_found(looked_at, is_secret=False))
    return frozenset()


def _found(value: Any, *, is_secret: bool) -> Iterator[str]:
    if isinstance(value, str):
        if is_secret:
            # "Bearer sk-..." holds the secret as a word.
            yield from {value, *value.split()}
    elif isinstance(value, list):
        for each in value:
            yield from _found(each, is_secret=is_secret)
    elif isinstance(value, Mapping):
        for name, each in value.items():
            if isinstance(each, str) and name.endswith("url"):
                yield from _in_url(each)
            yield from _found(
                each, is_secret=is_secret or name in _OBJECTS or (isinstance(each, str) and is_secret_name(name))
            )


def _in_url(url: str) -> Iterator[str]:
    try:
        split = urlsplit(url)
    except ValueError:
        return
    if split.password:
        yield split.password
    yield from (value for name, value in parse_qsl(split.query) if is_secret_parameter(name))

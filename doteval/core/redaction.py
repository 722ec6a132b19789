"""Hides passwords in URLs, so that messages, tables and logs never show them."""

from __future__ import annotations

import re

HIDDEN = "***"

# Celery takes several broker URLs separated by ";", and a password may hold a ";" of its own.
_BETWEEN_URLS = re.compile(r";(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[^?&=]*(?:password|passwd|pwd|secret|token|api_?key)[^?&=]*)=[^&]*", re.IGNORECASE
)


def hide_password(url: str) -> str:
    """Replace the password and secret query parameters of a URL by ``***``. Several URLs may be joined by ";".

    It also works on URLs that no parser accepts. Since a password may hold any character, everything between the first
    ":" and the last "@" is hidden.

    >>> hide_password("redis://:p@ss@host:6379/0")
    'redis://:***@host:6379/0'
    """
    return ";".join(map(_hide_one, split_urls(url)))


def split_urls(urls: str) -> list[str]:
    """The URLs that are joined by ";".

    >>> split_urls("sentinel://one;sentinel://:a;b@two")
    ['sentinel://one', 'sentinel://:a;b@two']
    """
    return _BETWEEN_URLS.split(urls)


def _hide_one(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    user, at, place = rest.rpartition("@")
    if at:
        name, colon, _ = user.partition(":")
        user = f"{name}:{HIDDEN}" if colon else user
    address, question, query = place.partition("?")
    if question:
        query = "&".join(_SECRET_PARAMETER.sub(rf"\g<name>={HIDDEN}", parameter) for parameter in query.split("&"))
    return f"{scheme}://{user}{at}{address}{question}{query}"

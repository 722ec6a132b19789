"""URLs for people's eyes: passwords never appear in messages, tables or logs."""

from __future__ import annotations

import re

HIDDEN = "***"

# Celery takes several broker URLs parted by ";", and a password may hold a ";" of its own.
_BETWEEN_URLS = re.compile(r";(?=[a-z][a-z0-9+.-]*://)", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(
    r"(?P<name>[^?&=]*(?:password|passwd|pwd|secret|token|api_?key)[^?&=]*)=[^&]*", re.IGNORECASE
)


def hide_password(url: str) -> str:
    """The URL with its password replaced by ``***``, and so secret query parameters.

    Written for URLs that no parser accepts as well: a password may hold any character, so what
    lies between the first ":" and the last "@" is hidden. Several URLs may be joined by ";".
    """
    return ";".join(_hide_one(part) for part in _BETWEEN_URLS.split(url))


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

"""What servers say of their limits in headers: how long to wait, and how much is left.

``Retry-After`` as RFC 9110 section 10.2.3 has it, with the finer ``retry-after-ms`` of OpenAI; the
``x-ratelimit-*`` headers of OpenAI, Azure and vLLM's gateways; the ``anthropic-ratelimit-*`` headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of a limit: of `limit` requests (or tokens) `remaining`, and in `reset` seconds all again."""

    limit: float
    remaining: float
    reset: float


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds after which the server wants to be asked again, None if it does not say."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            return _until(text, now)
    return None


def requests_left(headers: Mapping[str, str], now: datetime | None = None) -> Left | None:
    """What is left of the limit of requests, None if the server does not say."""
    return _left(headers, "requests", now)


def tokens_left(headers: Mapping[str, str], now: datetime | None = None) -> Left | None:
    """What is left of the limit of tokens, None if the server does not say."""
    return _left(headers, "tokens", now)


def _left(headers: Mapping[str, str], what: str, now: datetime | None) -> Left | None:
    for template in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}"):
        limit = headers.get(template.format(part="limit", what=what))
        if limit is None:
            continue
        remaining = headers.get(template.format(part="remaining", what=what))
        reset = headers.get(template.format(part="reset", what=what))
        seconds = None if reset is None else _duration(reset, now)
        try:
            if remaining is not None and seconds is not None and float(limit) > 0:
                return Left(float(limit), float(remaining), seconds)
        except ValueError:
            return None
    return None


def _duration(text: str, now: datetime | None) -> float | None:
    """``6m0s``, ``120ms``, ``1.5`` or a moment in time, in seconds from now."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)
    try:
        return max(0.0, float(text))
    except ValueError:
        return _until(text, now)


def _until(text: str, now: datetime | None) -> float | None:
    try:
        moment = datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - (now or datetime.now(UTC))).total_seconds())

"""Reads what servers say of their limits in headers: how long to wait, and how much is left.

``Retry-After`` of RFC 9110, section 10.2.3, with OpenAI's finer ``retry-after-ms``; the ``x-ratelimit-*`` headers of
OpenAI, Azure and gateways before vLLM; the ``anthropic-ratelimit-*`` headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from doteval.core import clocks

_DURATION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(ms|h|m|s|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit as a server reports it: `remaining` of `limit` requests or tokens; all are back in `reset` seconds."""

    limit: float
    remaining: float
    reset: float


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds after which the server wants to be asked again, None if it does not say.

    >>> retry_after({"retry-after": "2"})
    2.0
    """
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        text = headers.get(name)
        if text is None:
            continue
        try:
            return max(0.0, float(text) * unit)
        except ValueError:
            return _until(text, now)
    return None


def requests_left(headers: Mapping[str, str], now: datetime | None = None) -> LimitState | None:
    """The limit on requests, None if the server does not report it.

    >>> requests_left({"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
    ...                "x-ratelimit-reset-requests": "1s"})
    LimitState(limit=60.0, remaining=59.0, reset=1.0)
    """
    return _limit_state(headers, "requests", now)


def tokens_left(headers: Mapping[str, str], now: datetime | None = None) -> LimitState | None:
    """The limit on tokens, None if the server does not report it."""
    return _limit_state(headers, "tokens", now)


def _limit_state(headers: Mapping[str, str], what: str, now: datetime | None) -> LimitState | None:
    for template in ("x-ratelimit-{part}-{what}", "anthropic-ratelimit-{what}-{part}"):
        limit = headers.get(template.format(part="limit", what=what))
        if limit is None:
            continue
        remaining = headers.get(template.format(part="remaining", what=what))
        reset = headers.get(template.format(part="reset", what=what))
        seconds = None if reset is None else _duration(reset, now)
        try:
            if remaining is not None and seconds is not None and float(limit) > 0:
                return LimitState(float(limit), float(remaining), seconds)
        except ValueError:
            return None
    return None


def _duration(text: str, now: datetime | None) -> float | None:
    """The seconds of ``6m0s``, ``120ms``, ``1.5``, or until a date."""
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
    return max(0.0, (moment - (now or clocks.utc_now())).total_seconds())

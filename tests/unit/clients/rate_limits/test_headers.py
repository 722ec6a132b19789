"""Rate limit headers, as the providers document them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from doteval.clients.rate_limits.headers import LimitState, requests_left, retry_after, tokens_left

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "1", "retry-after-ms": "25"}, 0.025),
        ({"retry-after": "Sat, 31 Jan 2026 12:00:20 GMT"}, 20),
        ({"retry-after": "Sat, 31 Jan 2026 11:00:00 GMT"}, 0),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("120ms", 0.12),
        ("1h2m3s", 3723),
        ("7.66s", 7.66),
        ("2.5", 2.5),
        ("", None),
        ("x", None),
    ],
)
def test_openai_headers(reset: str, seconds: float | None) -> None:
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": reset,
    }
    assert requests_left(headers, NOW) == (None if seconds is None else LimitState(60, 59, seconds))
    assert tokens_left(headers, NOW) is None


def test_anthropic_headers() -> None:
    headers = {
        "anthropic-ratelimit-tokens-limit": "50000",
        "anthropic-ratelimit-tokens-remaining": "49000",
        "anthropic-ratelimit-tokens-reset": "2026-01-31T12:00:30Z",
    }
    assert tokens_left(headers, NOW) == LimitState(50000, 49000, 30)
    assert requests_left(headers, NOW) is None


@pytest.mark.parametrize("limit", ["0", "many"])
def test_headers_without_a_usable_limit_are_ignored(limit: str) -> None:
    headers = {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": "1",
        "x-ratelimit-reset-requests": "1s",
    }
    assert requests_left(headers) is None

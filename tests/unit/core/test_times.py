"""Ages and dates as users write them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from doteval.core.times import parse_age, parse_since
from doteval.errors import UsageError

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("0d", 0)]
)
def test_ages(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1 day", "1y", "nand", "1e9d"])
def test_what_is_no_age(text: str) -> None:
    with pytest.raises(UsageError, match="is not an age") as raised:
        parse_age(text)
    assert "30d" in str(raised.value.remedy)


def test_since_an_age_or_a_date() -> None:
    assert parse_since("1d", NOW) == datetime(2026, 11, 28, 12, tzinfo=UTC)
    assert parse_since("2026-11-01") == datetime(2026, 11, 1).astimezone()
    assert parse_since("2026-11-01T10:00+02:00") == datetime(2026, 11, 1, 8, tzinfo=UTC)
    for text in ("yesterday", "2026-13-01", "99999999w"):
        with pytest.raises(UsageError):
            parse_since(text, NOW)

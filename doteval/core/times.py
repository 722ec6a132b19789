"""Reads how long ago, and since when, as users write it: `30d`, `12h`, `2026-11-01`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from doteval.core import clocks
from doteval.errors import UsageError

_AGO = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[smhdw])")
_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_FORMS = "Write a number with s, m, h, d or w for seconds, minutes, hours, days or weeks, as in 30d"


def parse_age(text: str) -> float:
    """Return the seconds of an age such as `30d`.

    >>> parse_age("30d"), parse_age("1.5h")
    (2592000.0, 5400.0)

    Raises UsageError: the text is no age.
    """
    found = _AGO.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not an age", remedy=f"{_FORMS}.")
    return float(found["number"]) * _UNIT_SECONDS[found["unit"]]


def parse_since(text: str, now: datetime | None = None) -> datetime:
    """Return the moment that an age or a date names. A date without a time zone is one of this machine's.

    >>> parse_since("2026-11-01T12:00+00:00").isoformat()
    '2026-11-01T12:00:00+00:00'

    Raises UsageError: the text is neither, or too long ago.
    """
    if _AGO.fullmatch(text.strip()):
        try:
            return (now or clocks.utc_now()) - timedelta(seconds=parse_age(text))
        except OverflowError:
            raise UsageError(f"{text!r} is before the first year") from None
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is neither an age nor a date", remedy=f"{_FORMS}, or a date as 2026-11-01."
        ) from None
    return found.astimezone()

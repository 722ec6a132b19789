"""Says how a request differs from the recorded one that is nearest to it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence

from doteval.core import lenient_json
from doteval.core.call_bodies import CallBody

_LINES_SHOWN = 20
_CHARACTERS_SHOWN = 200
# So many recorded requests are looked at, and so many of their lines: rows of hundreds of calls may fail by thousands.
_MOST_COMPARED = 8
_MOST_LINES = 500


def difference(asked: CallBody, recorded: Sequence[CallBody], position: int) -> str:
    r"""The lines in which a request differs from the nearest recorded one: `-` was recorded, `+` is asked now.

    recorded: in the order in which they were asked.
    position: how many calls the row has made before this one.

    >>> then = CallBody("/chat/completions", "", "", b'{"model": "m", "temperature": 0}', b"")
    >>> now = CallBody("/chat/completions", "", "", b'{"model": "m", "temperature": 1}', b"")
    >>> print(difference(now, [then], 0))
    -   "temperature": 0
    +   "temperature": 1
    """
    alike = [each for each in recorded if each.endpoint == asked.endpoint] or list(recorded)
    # A row asks its questions in the same order, as a rule.
    start = max(0, min(position, len(alike)) - _MOST_COMPARED // 2)
    lines = _lines(asked)
    found = [_changes(_lines(each), lines) for each in alike[start : start + _MOST_COMPARED]]
    nearest = min(found, key=len)
    if not nearest:
        return "the bodies are the same, and the endpoint or the number of such requests differs"
    shown = [line if len(line) <= _CHARACTERS_SHOWN else f"{line[:_CHARACTERS_SHOWN]}..." for line in nearest]
    more = [f"... and {len(shown) - _LINES_SHOWN:,} lines more"] if len(shown) > _LINES_SHOWN else []
    return "\n".join([*shown[:_LINES_SHOWN], *more])


def _changes(before: list[str], after: list[str]) -> list[str]:
    return [line for line in difflib.ndiff(before, after) if line[:1] in "-+"]


def _lines(body: CallBody) -> list[str]:
    try:
        value = lenient_json.loads(body.request)
    except ValueError:
        return body.request.decode(errors="replace").splitlines()[:_MOST_LINES]
    return list(_flat(json.dumps(value, indent=2, ensure_ascii=False).splitlines()))[:_MOST_LINES]


def _flat(lines: Iterable[str]) -> Iterable[str]:
    # The comma after the last entry but one is no difference.
    return (line.removesuffix(",") for line in lines)

"""How counts, durations and foreign text are written for people."""

from __future__ import annotations

import re
from collections.abc import Sequence

# C0 and C1 controls, which move a cursor, ring a bell or recolour a terminal, and the marks that change the direction
# of text, so that a name reads as another. Newline and tab stay.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def plain(text: object) -> str:
    r"""Return a text with control characters replaced, so that a terminal does not obey them.

    >>> plain("red \x1b[31m, backwards \u202e")
    'red \ufffd[31m, backwards \ufffd'
    """
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text))


def clean(text: object) -> str:
    r"""Return a text as `plain` does, without lone surrogates, which UTF-8 does not have.

    >>> clean("a\x00b\ud800")
    'a\ufffdb\ufffd'
    """
    return _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", plain(text))


def in_sentences(text: str) -> str:
    r"""Return a text of several lines in one, with a stop where a line ends without one and the next begins anew.

    >>> in_sentences("it returned bool\nReturn a score.\n  See\n  there.")
    'it returned bool. Return a score. See there.'
    """
    joined = ""
    for line in filter(None, (line.strip() for line in text.splitlines())):
        stop = "." if joined and joined[-1].isalnum() and line[0].isupper() else ""
        joined += f"{stop} {line}" if joined else line
    return joined


def plain_json(document: str) -> str:
    r"""Return a JSON text with control characters escaped. Its values stay the same.

    >>> print(plain_json('"backwards \u202e"'))
    "backwards \u202e"
    """
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """Return a number with the noun, or the words, that agree with it.

    >>> counted(1, "row"), counted(2000, "row"), counted(2, "worker process")
    ('1 row', '2,000 rows', '2 worker processes')
    >>> counted(3, "batch")
    '3 batches'
    >>> counted(1, "row is", "rows are")
    '1 row is'
    """
    if number == 1:
        return f"1 {singular}"
    return f"{number:,} {plural or (f'{singular}es' if singular.endswith(('s', 'ch', 'sh', 'x')) else f'{singular}s')}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """Return the first names of a list, and how many more there are.

    >>> listed(["a", "b", "c"]), listed(["a", "b", "c", "d"], most=2)
    ('a, b, c', 'a, b and 2 more')
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def duration(seconds: float | None) -> str:
    """Return a duration as people read it.

    >>> duration(0.4217), duration(12.34), duration(242), duration(7500), duration(None)
    ('0.42 s', '12.3 s', '4 min 02 s', '2 h 05 min', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"

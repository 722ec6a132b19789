"""Compares what a test provokes with the section of docs/troubleshooting.md about it, so that both stay the same."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from doteval.cli import manual
from doteval.errors import DotEvalError

PAGE = Path(__file__).parents[2] / "docs" / "troubleshooting.md"
_EXCERPT = re.compile(r"^```text\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What is between the titles of a table and its lines.
_RULE = re.compile("─+")
_LED = re.compile(r"More: doteval docs troubleshooting#(\S+)")
# What differs by run or by machine: numbers, ids, and paths below the directory of a test.
_LOOSE = re.compile(r"(?P<path>/home/you/[\w./-]*)|(?P<number>\d[\d.,]*)|(?P<any>\.\.\.)")


@cache
def sections() -> dict[str, tuple[str, ...]]:
    """The excerpts of every section of the page, by its anchor."""
    found = manual.sections(PAGE.read_text(encoding="utf-8"))
    return {each.anchor: tuple(_EXCERPT.findall(each.text)) for each in found if each.text.startswith("### ")}


def assert_shown(anchor: str, provoked: str | DotEvalError) -> None:
    """Fail unless what a command printed, or an error as commands print it, has the excerpts of a section.

    In an excerpt, ``...`` stands for any text, and numbers and paths may differ. Line breaks are those of any width. A
    capital letter may begin what a page of the view shows.
    """
    if isinstance(provoked, DotEvalError):
        more = f"More: doteval docs {provoked.page}" if provoked.page else ""
        provoked = f"Error: {provoked.message}\n{provoked.remedy or ''}\n{more}"
    assert anchor in sections(), f"docs/troubleshooting.md has no section {anchor!r}"
    output = " ".join(_RULE.sub(" ", provoked).split())
    for excerpt in sections()[anchor]:
        assert re.search(_pattern(excerpt), output, re.IGNORECASE), (
            f"the section {anchor!r} shows\n{excerpt}\nprinted was\n{provoked}"
        )
    led = _LED.findall(provoked)
    assert led in ([], [anchor]), f"the error leads to {led}, not to {anchor!r}"


def _pattern(excerpt: str) -> str:
    text, pattern, end = " ".join(excerpt.split()), "", 0
    for found in _LOOSE.finditer(text):
        pattern += re.escape(text[end : found.start()])
        pattern += {"path": r"\S+?", "number": r"\d[\d.,]*", "any": ".*?"}[str(found.lastgroup)]
        end = found.end()
    return pattern + re.escape(text[end:])

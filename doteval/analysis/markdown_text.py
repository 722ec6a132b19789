"""Tables, blocks and names in Markdown, in which nothing of foreign texts is Markdown or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable

from doteval.core.wording import counted, plain

# Characters of Markdown for a table or a block, if nobody says otherwise. GitHub takes 65,536 in a comment.
_PART_CHARACTERS = 20_000
_NAME_CHARACTERS = 200
_SENTENCE_CHARACTERS = 2_000

# Characters that Markdown, a table or HTML may interpret. Underscores within words have no meaning there.
_SPECIAL = re.compile(r"[^\w\s.,:;/=+()-]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_BACKTICKS = re.compile("`+")


def markdown_table(
    titles: tuple[str, ...], rows: Iterable[tuple[str, ...]], *, left: int, characters: int = _PART_CHARACTERS
) -> list[str]:
    """The lines of a table whose first `left` columns are texts; rows beyond so many characters are counted.

    >>> print(*markdown_table(("score", "value"), [("f1", "0.5")], left=1), sep="\\n")
    | score | value |
    | --- | ---: |
    | f1 | 0.5 |
    """
    marks = ["---" if position < left else "---:" for position in range(len(titles))]
    lines, dropped = _fitting((f"| {' | '.join(row)} |" for row in rows), characters)
    more = ["", f"{counted(dropped, 'more line is', 'more lines are')} in `doteval show`."] if dropped else []
    return [f"| {' | '.join(titles)} |", f"| {' | '.join(marks)} |", *lines, *more]


def markdown_block(sentences: Iterable[str]) -> list[str]:
    """The sentences in a code block, in which nothing is Markdown, nobody is mentioned, and no address is a link."""
    lines, dropped = _fitting(
        (_cut(line, _SENTENCE_CHARACTERS) for text in sentences for line in plain(text).split("\n")),
        _PART_CHARACTERS,
    )
    longest = max((len(run) for line in lines for run in _BACKTICKS.findall(line)), default=0)
    fence = "`" * max(3, longest + 1)
    return [fence, *lines, *([f"... and {counted(dropped, 'more line')}"] if dropped else []), fence]


def _fitting(lines: Iterable[str], room: int) -> tuple[list[str], int]:
    """The first lines that have so many characters, and how many are left."""
    kept: list[str] = []
    dropped = 0
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            dropped += 1
        else:
            kept.append(line)
    return kept, dropped


def markdown_code(name: str) -> str:
    """A name in one cell or line, with all that is Markdown, HTML or a table's as character references.

    No code span, since a backslash before a bar would end its cell.
    """
    text = _cut(plain(" ".join(name.split())), _NAME_CHARACTERS)
    return f"<code>{_SPECIAL.sub(lambda found: f'&#{ord(found[0])};', text)}</code>"


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]} ..."

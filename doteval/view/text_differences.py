"""Marks what differs between two texts, word by word."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

# Longer texts are compared by their beginnings: the time grows with the square of the number of words.
_MOST_WORDS = 1_500
_WORD = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a text; `differs` if the other text does not have it."""

    text: str
    differs: bool


def marked_difference(before: str, after: str) -> tuple[list[TextPart], list[TextPart]]:
    """Part two texts into what they share and what only one has.

    What lies beyond the first words of long texts is not marked.

    >>> old, new = marked_difference("the answer is 41", "the answer is 42!")
    >>> [part.text for part in old if part.differs], [part.text for part in new if part.differs]
    (['41'], ['42!'])
    """
    (old, old_rest), (new, new_rest) = _words(before), _words(after)
    parts: tuple[list[TextPart], list[TextPart]] = ([], [])
    for kind, first, end, other_first, other_end in difflib.SequenceMatcher(None, old, new).get_opcodes():
        for side, words in zip(parts, (old[first:end], new[other_first:other_end]), strict=True):
            if words:
                side.append(TextPart("".join(words), kind != "equal"))
    for side, rest in zip(parts, (old_rest, new_rest), strict=True):
        if rest:
            side.append(TextPart(rest, differs=False))
    return parts


def _words(text: str) -> tuple[list[str], str]:
    """The first words of a text, with what is between them, and the rest of it."""
    words: list[str] = []
    end = 0
    for found in _WORD.finditer(text):
        if len(words) == _MOST_WORDS:
            break
        words.append(found[0])
        end = found.end()
    return words, text[end:]

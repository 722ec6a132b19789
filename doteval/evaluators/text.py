"""Evaluators of text: equality, containment, patterns, and multiple choice."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from doteval.core.results import Score
from doteval.evaluators.decorator import evaluator
from doteval.metrics import accuracy

_FULL_WIDTH = {character + 0xFEE0: character for character in range(0x21, 0x7F)}


@evaluator(metrics=accuracy())
def exact_match(result: Any, expected: Any) -> bool:
    """Whether `result == expected`. Nothing is trimmed, case-folded or converted.

    >>> exact_match("Paris", "paris").value
    False
    """
    return bool(result == expected)


@evaluator(metrics=accuracy())
def contains(result: str | None, expected: str | Iterable[str], *, ignore_case: bool = False) -> bool:
    """Whether the text contains `expected`, or each of several strings. None contains nothing.

    >>> contains("The capital is Paris.", "Paris").value
    True
    """
    if result is None:
        return False
    wanted = [expected] if isinstance(expected, str) else list(expected)
    if ignore_case:
        return all(part.casefold() in result.casefold() for part in wanted)
    return all(part in result for part in wanted)


@evaluator(metrics=accuracy())
def regex_match(result: str | None, pattern: str | re.Pattern[str], *, full: bool = False) -> bool:
    """Whether the pattern is found in the text, or matches all of it if `full`. None has no match.

    >>> regex_match("Answer: 42", r"[0-9]+").value
    True

    Raises re.error if the pattern is not valid.
    """
    if result is None:
        return False
    return bool(re.fullmatch(pattern, result) if full else re.search(pattern, result))


@evaluator(metrics=accuracy())
def choice_match(result: str | None, expected: str, choices: Sequence[str] = tuple(ascii_uppercase[:10])) -> Score:
    """Whether the text chooses `expected`, which is one of `choices`. Case does not matter.

    Full-width letters and signs, as in "（Ｂ）", are those of ASCII. The text may choose in these ways, of which the
    first that occurs counts: the whole text is a choice; a choice is in ``\\boxed{}``, where commands such as
    ``\\mathrm{}`` and brackets may enclose it; a choice follows the last "answer", "choice" or "option"; only one
    choice is in brackets or bold; only one choice begins a line, as in ``B) Paris``; only one choice of more than one
    letter is in the text. Without a choice, or with several, the value is False. The metadata has the choice as
    `chosen`.

    >>> choice_match("The answer is (B).", "B").value
    True
    """
    names = {_ascii(choice): choice for choice in choices}
    found = None if result is None else _chosen(_ascii(result), tuple(names))
    chosen = next((names[name] for name in names if name.casefold() == found), None)
    right = chosen is not None and found == _ascii(expected).casefold()
    return Score("choice_match", right, (), {"chosen": chosen})


def _ascii(text: str) -> str:
    """The text with full-width letters, digits and signs (U+FF01 to U+FF5E) in ASCII."""
    return text.translate(_FULL_WIDTH)


def _chosen(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice in the text, in lower case; None if there is none, or more than one."""
    known = {choice.casefold() for choice in choices}
    if (whole := _bare(text)) in known:
        return whole
    if boxed := [choice for content in _boxed(text) if (choice := _bare(content)) in known]:
        return boxed[-1]
    patterns = _choice_patterns(choices)
    if found := patterns.after_answer.findall(text):
        return str(found[-1]).casefold()
    for pattern in patterns.only:
        if several := {str(one).casefold() for one in pattern.findall(text)}:
            return several.pop() if len(several) == 1 else None
    return None


def _bare(text: str) -> str:
    """The text in lower case, without what may enclose a choice."""
    return text.casefold().strip().strip("()[]{}*_`'\"$. :")


_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
# Of a longer content, no single choice is left.
_LONGEST_BOX = 1000


def _boxed(text: str) -> Iterator[str]:
    """The contents of ``\\boxed{}``, without commands such as ``\\mathrm``."""
    begun: list[int | None] = []
    for brace in _BRACES.finditer(text):
        if brace[0].startswith("\\boxed"):
            begun.append(brace.end())
        elif brace[0] == "{":
            begun.append(None)
        elif brace[0] == "}" and begun:
            start = begun.pop()
            if start is not None and brace.start() - start <= _LONGEST_BOX:
                yield _COMMAND.sub("", text[start : brace.start()])


class _ChoicePatterns(NamedTuple):
    """Patterns that find choices: of `after_answer`, the last match counts; of each of `only`, all have to agree."""

    after_answer: re.Pattern[str]
    only: tuple[re.Pattern[str], ...]


@functools.lru_cache(maxsize=64)
def _choice_patterns(choices: tuple[str, ...]) -> _ChoicePatterns:
    # Longest first, so that "not true" is not read as "true".
    ordered = sorted(choices, key=len, reverse=True)
    words = "|".join(re.escape(choice) for choice in ordered if len(choice) > 1)
    letters = "|".join(re.escape(choice) for choice in ordered if len(choice) == 1)
    any_case = f"(?i:{'|'.join(filter(None, (words, letters)))})"
    # In running text "a" is an article: a single letter counts there in its own case only.
    in_text = "|".join(filter(None, (f"(?i:{words})" if words else "", letters)))
    after = r"(?i:\b(?:answer|choice|option)\b(?:\s+(?:is|would\s+be|should\s+be))?)(?:\s*[:=])?[\s(\[*_`'\"]*(?<!\w)"
    only = [rf"(?<!\w)[(\[*]({any_case})[)\]*]", rf"(?m)^[^\S\n]*({any_case})[).:](?!\w)"]
    if words:
        only.append(rf"(?<!\w)((?i:{words}))(?!\w)")
    return _ChoicePatterns(
        re.compile(rf"(?m){after}({in_text}|{any_case}(?=\W*$))(?!\w)"), tuple(map(re.compile, only))
    )

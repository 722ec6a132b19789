"""Evaluators of text: equality, containment, patterns, and multiple choice."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

from doteval.core.results import Score
from doteval.evaluators.base import evaluator
from doteval.metrics import accuracy


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

    The text may choose in these ways, of which the first that occurs counts: the whole text is a choice; a choice is
    in ``\\boxed{}``; a choice follows the last "answer", "choice" or "option"; only one choice is in brackets or
    bold; only one choice begins a line, as in ``B) Paris``; only one choice of more than one letter is in the text.
    Without a choice, or with several, the value is False. The metadata has the choice as `chosen`.

    >>> choice_match("The answer is (B).", "B").value
    True
    """
    names = {choice.casefold(): choice for choice in choices}
    chosen = None if result is None else names.get(_chosen(result, tuple(names.values())) or "")
    right = chosen is not None and chosen.casefold() == expected.casefold()
    return Score("choice_match", right, (), {"chosen": chosen})


def _chosen(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice in the text, in lower case; None if there is none, or more than one."""
    whole = text.casefold().strip().strip("()[]{}*_`'\". :")
    if whole in {choice.casefold() for choice in choices}:
        return whole
    patterns = _choice_patterns(choices)
    for pattern in patterns.last:
        if found := pattern.findall(text):
            return str(found[-1]).casefold()
    for pattern in patterns.only:
        if several := {str(one).casefold() for one in pattern.findall(text)}:
            return several.pop() if len(several) == 1 else None
    return None


class _ChoicePatterns(NamedTuple):
    """Patterns that find choices: in `last`, the last match counts; in `only`, all matches have to agree."""

    last: tuple[re.Pattern[str], ...]
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
    after = r"(?i:\b(?:answer|choice|option)\b(?:\s+(?:is|would\s+be|should\s+be))?)\s*[:=]?[\s(\[*_`'\"]*(?<!\w)"
    last = (
        rf"\\boxed\{{\s*(?:\\text\{{)?\s*({any_case})\s*\}}",
        rf"(?m){after}({in_text}|{any_case}(?=\W*$))(?!\w)",
    )
    only = [rf"(?<!\w)[(\[*]({any_case})[)\]*]", rf"(?m)^\s*({any_case})[).:](?!\w)"]
    if words:
        only.append(rf"(?<!\w)((?i:{words}))(?!\w)")
    return _ChoicePatterns(tuple(map(re.compile, last)), tuple(map(re.compile, only)))

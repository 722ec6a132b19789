"""Evaluators of text: equal, contained, matching, chosen."""

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
    """Whether `result == expected`: nothing is trimmed, folded or converted."""
    return bool(result == expected)


@evaluator(metrics=accuracy())
def contains(result: str | None, expected: str | Iterable[str], *, ignore_case: bool = False) -> bool:
    """Whether the text contains `expected`, or every one of several. None contains nothing."""
    if result is None:
        return False
    wanted = [expected] if isinstance(expected, str) else list(expected)
    if ignore_case:
        return all(part.casefold() in result.casefold() for part in wanted)
    return all(part in result for part in wanted)


@evaluator(metrics=accuracy())
def regex_match(result: str | None, pattern: str | re.Pattern[str], *, full: bool = False) -> bool:
    """Whether the pattern is found in the text, or with `full` matches all of it. None has no match.

    Raises re.error if the pattern is not valid.
    """
    if result is None:
        return False
    return bool(re.fullmatch(pattern, result) if full else re.search(pattern, result))


@evaluator(metrics=accuracy())
def choice_match(result: str | None, expected: str, choices: Sequence[str] = tuple(ascii_uppercase[:10])) -> Score:
    """Whether the choice that the text makes is `expected`, one of `choices`; case does not matter.

    Taken for the choice is, in this order: the whole text; what stands in ``\\boxed{}``; what follows
    the last "answer", "choice" or "option"; the only choice that is in brackets or bold; the only one
    that begins a line, as in ``B) Paris``; the only one of more than one letter that is in the text at
    all. Nothing, or more than one choice, is no match. The metadata has what was `chosen`.
    """
    names = {choice.casefold(): choice for choice in choices}
    chosen = None if result is None else names.get(_chosen(result, tuple(names.values())) or "")
    right = chosen is not None and chosen.casefold() == expected.casefold()
    return Score("choice_match", right, (), {"chosen": chosen})


def _chosen(text: str, choices: tuple[str, ...]) -> str | None:
    """The choice that the text makes, in lower case."""
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
    """Where a choice may stand: the last one counts, or it must be the only one."""

    last: tuple[re.Pattern[str], ...]
    only: tuple[re.Pattern[str], ...]


@functools.lru_cache(maxsize=64)
def _choice_patterns(choices: tuple[str, ...]) -> _ChoicePatterns:
    # Longest first, so that "not true" is not taken for "true".
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

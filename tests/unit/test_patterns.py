"""Every pattern (regular expression) in doteval takes time that is linear in the length of a text.

Most texts come from outside: replies of models, log lines, messages, URLs, names. A pattern that is quadratic stops a
process for hours at 1 MB. The patterns are read from the source, so that a new one is tested too. Hostile texts are
made from each pattern's own characters: what may repeat in it is repeated, and the end does not fit.
"""

from __future__ import annotations

import ast
import itertools
import re
import re._parser as parser  # type: ignore[import-untyped] # as re itself reads a pattern
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from doteval.evaluators.text import _choice_patterns

PACKAGE = Path(__file__).parents[2] / "doteval"
# Methods that stop at the first match or at the beginning; the others go through the whole text.
_AT_ONCE = ("match", "search", "fullmatch")
_METHODS = (*_AT_ONCE, "sub", "subn", "split", "findall", "finditer")
# What stands for the variables of patterns that are put together while doteval runs.
_EXAMPLES = {
    "words": "yes|no",
    "pattern": "[0-9]+",
    "after": "x",
    "in_text": "a",
    "any_case": "a",
    "name": "p1",
    "named": r"style\W{0,50}",
}
_LENGTH = 30_000
# Processor time for one text. A linear pattern takes thousandths of a second, a quadratic one several seconds.
_BOUND_SECONDS = 0.5


class NotLinearError(Exception):
    """A pattern took longer than a linear one can."""


def found_patterns() -> Iterator[tuple[str, re.Pattern[Any], frozenset[str]]]:
    """The place of each pattern in the package, the pattern, and the methods that it is used with."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {id(node.value): node.targets[0] for node in ast.walk(tree) if isinstance(node, ast.Assign)}
        for node in ast.walk(tree):
            if not _is_call_of_re(node):
                continue
            method = node.func.attr
            flags = [each for each in node.args[1:] if "re." in ast.unparse(each)] if method == "compile" else []
            flags += [each.value for each in node.keywords if each.arg == "flags"]
            values = [eval(ast.unparse(each), {"re": re}, dict(_EXAMPLES)) for each in (node.args[0], *flags)]
            methods = frozenset({method}) if method != "compile" else _methods_of(tree, names.get(id(node)))
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}", re.compile(*values), methods
    for number, pattern in enumerate((built := _choice_patterns(("A", "true", "not true"))).only):
        yield f"choices {number}", pattern, frozenset({"finditer"})
    yield "choices", built.after_answer, frozenset({"finditer"})


def _is_call_of_re(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    module = node.func.value
    return isinstance(module, ast.Name) and module.id == "re" and node.func.attr in (*_METHODS, "compile")


def _methods_of(tree: ast.AST, target: ast.expr | None) -> frozenset[str]:
    """The methods that are called of a name; all of them if it has none, or is used otherwise."""
    calls = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(target, ast.Name)
        and isinstance(node.value, ast.Name)
        and node.value.id == target.id
        and node.attr in _METHODS
    }
    return frozenset(calls or {"sub"})


def hostile_texts(pattern: re.Pattern[Any]) -> Iterator[Any]:
    """Texts that repeat the characters and words of a pattern, with a beginning that fits and an end that does not."""
    characters, words = _parts(parser.parse(pattern.pattern, pattern.flags & ~re.DEBUG))
    characters = list(dict.fromkeys(["\n"] * bool(pattern.flags & re.MULTILINE) + characters))[:7]
    words = sorted(dict.fromkeys(words), key=len, reverse=True)[:3]
    pumps = [*characters, *words, *map("".join, itertools.permutations(characters, 2))]
    pumps += [word + character for word in words for character in characters]
    for pump, begin, end in itertools.product(pumps, ["", *words], ["", "\x01"]):
        text = begin + pump * (_LENGTH // len(pump)) + end
        yield text.encode("latin-1", "replace") if isinstance(pattern.pattern, bytes) else text


def _parts(parsed: Any) -> tuple[list[str], list[str]]:
    """One character for each literal and class in a parsed pattern, and the words that its literals make."""
    characters: list[str] = []
    words: list[str] = []
    letters: list[str] = []
    word = ""
    for operation, argument in [*parsed, (None, None)]:
        name = str(operation)
        if name == "LITERAL":
            word += chr(argument)
            continue
        if len(word) > 1:
            words.append(word)
        letters += word[:1]
        word = ""
        if name == "IN":
            characters += [character for item in argument if (character := _member(*item))]
        elif name in ("ANY", "NOT_LITERAL"):
            characters.append("z")
        for inner in _inner(argument):
            more, more_words = _parts(inner)
            characters += more
            words += more_words
    # Classes come first: they are what repeats.
    return [*characters, *letters], words


def _member(kind: Any, value: Any) -> str:
    """A character of a class."""
    if str(kind) == "RANGE":
        return chr(value[0])
    if str(kind) == "LITERAL":
        return chr(value)
    categories = {"DIGIT": "1", "SPACE": " ", "WORD": "a", "NOT_WORD": " ", "NOT_SPACE": "z", "NOT_DIGIT": "z"}
    return categories.get(str(value).removeprefix("CATEGORY_"), "z")


def _inner(argument: Any) -> Iterator[Any]:
    if isinstance(argument, parser.SubPattern):
        yield argument
    elif isinstance(argument, tuple | list):
        for each in argument:
            yield from _inner(each)


@contextmanager
def bounded() -> Iterator[None]:
    """Raise NotLinearError when the block has taken too much processor time."""

    def stop(_: int, __: FrameType | None) -> None:
        raise NotLinearError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, _BOUND_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def slow_text(pattern: re.Pattern[Any], methods: frozenset[str]) -> Any:
    """The beginning of a text for which the pattern takes too long, None if there is none."""
    for text in hostile_texts(pattern):
        try:
            with bounded():
                for method in methods:
                    if method in _AT_ONCE:
                        getattr(pattern, method)(text)
                    else:
                        pattern.sub(text[:0], text)
        except NotLinearError:
            return text[:40]
    return None


def test_every_pattern_is_linear() -> None:
    found = list(found_patterns())
    assert len(found) > 30
    slow = {place: text for place, pattern, methods in found if (text := slow_text(pattern, methods)) is not None}
    assert slow == {}


@pytest.mark.parametrize(
    "bad",
    [
        r"\s+$",
        r"(\w+)@(\w+)",
        r"(a+)+b",
        r"<b>.*?</b>",
        r"(?m)^\s*x",
        r"(?:answer|choice|option)\s*[:=]?[\s(]*x",
        r"\d+(\.\d+)?\d*x",
        r"answer\s*[:=]?\s*\d",
    ],
)
def test_a_pattern_that_is_not_linear_is_found(bad: str) -> None:
    assert slow_text(re.compile(bad, re.DOTALL), frozenset({"sub"})) is not None

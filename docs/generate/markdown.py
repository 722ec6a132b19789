"""Markdown of tables, signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_BANNER = '<!-- Written by "make reference" from the code: change it there. -->'
# "name: meaning", "first, second: meaning", with or without code marks around names.
_MEANING = re.compile(r"^(`?\*{0,2}\w+`?(?:, `?\*{0,2}\w+`?)*): (.+)$")
_WIDEST_SIGNATURE = 100


class MissingTextError(Exception):
    """The code does not say what a thing means."""


def page_of(title: str, *parts: str) -> str:
    """Return a page: a title and its parts, with one empty line between."""
    return "\n\n".join([_BANNER, f"# {title}", *(part.strip("\n") for part in parts if part.strip())]) + "\n"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Return a table. Bars and line ends in cells are escaped.

    >>> print(table(["a", "b"], [[1, "x | y"]]))
    | a | b |
    |---|---|
    | 1 | x \| y |
    """
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        ("|" if number == 1 else "| ")
        + ("|" if number == 1 else " | ").join(" ".join(str(cell).split()).replace("|", r"\|") for cell in line)
        + ("|" if number == 1 else " |")
        for number, line in enumerate(lines)
    )


def code(text: object) -> str:
    """Return a text as code within a line; nothing for an empty one."""
    return f"`{text}`" if str(text) else ""


def signature(name: str, thing: Any) -> str:
    """Return a call of a function or class as it is declared, as a block of code; long ones have a line a parameter."""
    found = inspect.signature(thing)
    parameters = [each.replace(annotation=_as_written(each.annotation)) for each in found.parameters.values()]
    if parameters and parameters[0].name == "self":
        del parameters[0]
    returned = inspect.Signature.empty if isinstance(thing, type) else _as_written(found.return_annotation)
    shown = found.replace(parameters=parameters, return_annotation=returned)
    text = f"{name}{shown}"
    if len(text) > _WIDEST_SIGNATURE:
        ending = str(shown.replace(parameters=[]))[2:]
        text = f"{name}(\n" + "".join(f"    {part},\n" for part in _listed(parameters)) + f"){ending}"
    return f"```py\n{text}\n```"


class _AsWritten:
    """An annotation that `inspect` prints without quotation marks."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _as_written(annotation: Any) -> Any:
    if isinstance(annotation, type) and annotation.__module__.startswith("doteval"):
        return _AsWritten(annotation.__qualname__)
    return _AsWritten(annotation) if isinstance(annotation, str) else annotation


def _listed(parameters: Sequence[inspect.Parameter]) -> Iterator[str]:
    is_keyword = False
    for parameter in parameters:
        if parameter.kind is parameter.VAR_POSITIONAL:
            is_keyword = True
        if parameter.kind is parameter.KEYWORD_ONLY and not is_keyword:
            is_keyword = True
            yield "*"
        yield str(parameter)


def documented(name: str, thing: Any) -> str:
    """Return the docstring of a thing as Markdown. Raises MissingTextError: it has none."""
    text = inspect.getdoc(thing)
    # A dataclass without a docstring gets its signature as one.
    if not text or text.startswith(f"{name.rpartition('.')[2]}("):
        raise MissingTextError(f"{name} has no docstring")
    return docstring(text)


def docstring(text: str) -> str:
    """Return a docstring as Markdown: examples as code, lists of "name: meaning" as lists.

    >>> print(docstring("Does it.\\n\\nname: ``x``, where\\n    y.\\n\\nRaises E: never."))
    Does it.
    <BLANKLINE>
    - `name`: `x`, where y.
    <BLANKLINE>
    Raises E: never.
    """
    parts: list[str] = []
    is_literal = False
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if is_literal and paragraph.startswith(" "):
            parts.append(f"```\n{inspect.cleandoc(paragraph)}\n```")
            continue
        if paragraph.startswith(">>> "):
            parts.append(f"```pycon\n{_without_directives(paragraph)}\n```")
            continue
        is_literal = paragraph.endswith("::")
        paragraph = paragraph.removesuffix("::").strip() + (":" if is_literal and paragraph.strip(":") else "")
        if paragraph:
            parts.append(_prose(paragraph.replace("``", "`")))
    return "\n\n".join(parts)


def _without_directives(example: str) -> str:
    return re.sub(r" *# doctest: .*$", "", example.replace("<BLANKLINE>", ""), flags=re.MULTILINE)


def _prose(paragraph: str) -> str:
    lines = paragraph.split("\n")
    if all(_MEANING.match(line) or line.startswith(" ") for line in lines) and not lines[0].startswith(" "):
        items = re.split(r"\n(?! )", paragraph)
        return "\n".join(_item(*_meaning(item)) for item in items)
    if lines[0].startswith("- "):
        return paragraph
    if paragraph.startswith("Raises ") and len(raised := re.split(r"\n(?=Raises )", paragraph)) > 1:
        return "\n".join(f"- {' '.join(each.split())}" for each in raised)
    return " ".join(line.strip() for line in lines)


def _meaning(item: str) -> tuple[list[str], str]:
    found = _MEANING.match(" ".join(line.strip() for line in item.split("\n")))
    assert found is not None
    return [name.strip("` ") for name in found[1].split(",")], found[2]


def _item(names: list[str], meaning: str) -> str:
    return f"- {', '.join(map(code, names))}: {meaning}"

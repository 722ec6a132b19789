"""Prints one record so that people can read it: conversations, indented JSON, a diff, the author's frames first."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import doteval
from doteval.analysis.readable_values import chat_messages, readable
from doteval.core.call_journal import UnrecordedCallError
from doteval.core.wording import duration

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.results import Record

# Columns that by their name hold what the model should have answered.
_EXPECTED = ("expected", "answer", "target", "label", "reference", "gold", "solution", "output")
# Characters of both texts, at most, whose difference is shown: to find it takes the square of their number, or more.
_COMPARED = 20_000
# Pairs of lines, at most, that are compared character by character: that takes up to the cube of the number of lines.
_COMPARED_PAIRS = 2_500
_FRAME = re.compile(r'^ *File "(?P<file>[^"]+)", line \d+')
# Frames of libraries: installed packages, Python's own modules, code without a file, and doteval itself.
_LIBRARY = re.compile(r"[\\/](?:site-packages|dist-packages)[\\/]|[\\/]lib[\\/]python\d|^<")
_OWN_PACKAGE = str(Path(doteval.__file__).parent)


def print_record(console: Console, record: Record) -> None:
    """Print one record: row, scores, prompt, response, error."""
    from rich.text import Text

    row, outcome = record.row, record.outcome
    sample = f", sample {row.sample}" if row.sample else ""
    scores = "".join(f"  {score.name}={score.value}" for score in outcome.scores)
    console.print(
        Text(f"row {row.index}{sample}", style="bold").append(
            f"  {outcome.status.value}  {duration(outcome.seconds)}{scores}", style="not bold"
        ),
        soft_wrap=True,
    )
    for name, value in row.values.items():
        _print_value(console, name, value)
    _print_value(console, "prompt", outcome.prompt)
    _print_value(console, "response", outcome.model_response)
    for line in _difference(row.values, outcome.model_response):
        style = {"+": "green", "-": "red"}.get(line[:1], "dim")
        console.print(f"    {line}", style=style, soft_wrap=True)
    _print_value(console, "metadata", dict(outcome.metadata) or None)
    if outcome.error is not None:
        console.print(f"  error: {outcome.error.type}: {outcome.error.message}", soft_wrap=True)
        if outcome.error.traceback:
            own = own_frames(outcome.error.traceback)
            if own:
                console.print("  in your code:", soft_wrap=True)
                console.print(own, style="bold", soft_wrap=True)
            # A call that is not recorded has the difference of the requests there, and no frames.
            what = "difference" if outcome.error.type == UnrecordedCallError.__name__ else "traceback"
            console.print(f"  {what}:", soft_wrap=True)
            console.print(outcome.error.traceback, style="dim" if own else "", soft_wrap=True)


def _print_value(console: Console, name: str, value: Any) -> None:
    if value is None:
        return
    messages = chat_messages(value)
    if messages is not None:
        console.print(f"  {name}:", soft_wrap=True)
        for role, text in messages:
            console.print(f"    {role}:", style="cyan", soft_wrap=True)
            console.print(indented(text, 6), soft_wrap=True)
        return
    text = readable(value)
    # A text of several lines begins on a line of its own.
    console.print(f"  {name}: {text}" if "\n" not in text else f"  {name}:\n{indented(text, 4)}", soft_wrap=True)


def _difference(values: Mapping[str, Any], response: Any) -> Iterator[str]:
    """The lines in which the expected answer and a response differ, if a column has an expected one."""
    name = next((each for each in _EXPECTED if isinstance(values.get(each), str)), None)
    if name is None or not isinstance(response, str) or values[name] == response:
        return
    expected = values[name]
    if len(expected) + len(response) > _COMPARED:
        return
    yield f"{name} → response"
    yield from _changes(expected.splitlines(), response.splitlines())


def _changes(old: list[str], new: list[str]) -> Iterator[str]:
    if len(old) * len(new) <= _COMPARED_PAIRS:
        for line in difflib.ndiff(old, new):
            if not line.startswith("  "):
                yield line.rstrip("\n")
        return
    for _, old_first, old_end, new_first, new_end in difflib.SequenceMatcher(None, old, new).get_opcodes():
        if old[old_first:old_end] != new[new_first:new_end]:
            yield from (f"- {line}" for line in old[old_first:old_end])
            yield from (f"+ {line}" for line in new[new_first:new_end])


def own_frames(traceback: str) -> str:
    """The part of a traceback that is about the author's own code: their frames, and the last line.

    Empty if all frames are theirs, or none is.
    """
    blocks: list[list[str]] = []
    rest: list[str] = []
    for line in traceback.splitlines():
        if _FRAME.match(line):
            blocks.append([line])
        elif blocks and line.startswith("    ") and not rest:
            blocks[-1].append(line)
        elif blocks:
            rest = [line] if line.strip() and not line.startswith(" ") else rest
    own = [block for block in blocks if not _is_of_library(block[0])]
    if not own or len(own) == len(blocks):
        return ""
    last = [line for line in traceback.splitlines() if line.strip()][-1]
    return "\n".join([line for block in own for line in block] + [last])


def _is_of_library(frame: str) -> bool:
    found = _FRAME.match(frame)
    assert found is not None
    file = found["file"]
    return _LIBRARY.search(file) is not None or file.startswith(_OWN_PACKAGE)


def indented(text: str, spaces: int) -> str:
    return "\n".join(f"{' ' * spaces}{line}" for line in text.splitlines())

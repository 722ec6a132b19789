"""Prints one record so that people can read it: conversations, indented JSON, a diff, the author's frames first."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from doteval.analysis.readable_values import chat_messages, expected_column, readable
from doteval.analysis.tracebacks import own_frames
from doteval.core.call_journal import UnrecordedCallError
from doteval.core.wording import duration

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.results import Record

# Characters of both texts, at most, whose difference is shown: to find it takes the square of their number, or more.
_COMPARED = 20_000
# Pairs of lines, at most, that are compared character by character: that takes up to the cube of the number of lines.
_COMPARED_PAIRS = 2_500


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
    for score in outcome.scores:
        # The other metadata are mostly what the evaluator was given.
        _print_value(console, f"{score.name}, reason", score.metadata.get("reason"))
    _print_value(console, "metadata", dict(outcome.metadata) or None)
    for each in record.labels:
        earlier = ", of an earlier result" if each.of_earlier else ""
        note = f": {each.note}" if each.note else ""
        console.print(
            f"  labelled {each.judgement.value} by {each.person}, "
            f"{each.labelled_at.astimezone():%Y-%m-%d %H:%M}{earlier}{note}",
            soft_wrap=True,
        )
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
    name = expected_column(values)
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


def indented(text: str, spaces: int) -> str:
    return "\n".join(f"{' ' * spaces}{line}" for line in text.splitlines())

"""Prints the calls of a row as a conversation, and describes them for `--json`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import orjson

from doteval.cli.readable import indented
from doteval.core.wording import counted, duration
from doteval.report.conversations import answered, asked, messages_in_common

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.store import StoredCall

_CHARACTERS_SHOWN = 10_000


def print_calls(console: Console, calls: Sequence[StoredCall]) -> None:
    """Print the calls of a row by sample and execution. What a call repeats of the one before is left out."""
    from rich.text import Text

    for (sample, _), group in itertools.groupby(calls, key=lambda call: (call.sample, call.execution)):
        mine = list(group)
        of = f" of sample {sample}" if sample else ""
        tokens = sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in mine)
        console.print(
            Text(f"{counted(len(mine), 'call')}{of}", style="bold").append(
                f"  {mine[0].started_at.astimezone():%Y-%m-%d %H:%M:%S}  {tokens:,} tokens", style="not bold"
            ),
            soft_wrap=True,
        )
        shown: list[tuple[str, str]] = []
        for call in mine:
            console.print(f"  {_heading(call)}", style="cyan", soft_wrap=True)
            if call.body is None:
                continue
            request = asked(call.body)
            for role, text in request[messages_in_common(shown, request) :]:
                _print_message(console, role, text)
            reply = answered(call.body)
            for role, text in reply:
                _print_message(console, role, text)
            if call.body.error:
                console.print(f"    error: {call.body.error}", style="red", soft_wrap=True)
            shown = [*request, *reply]


def call_document(call: StoredCall) -> dict[str, Any]:
    """A call for `--json`. Bodies that are no JSON, such as streams, are texts."""
    from doteval.analysis.record_documents import moment

    body = call.body
    return {
        "sample": call.sample,
        # As a text: it is larger than the numbers that JSON readers hold exactly.
        "execution": f"{call.execution:016x}",
        "position": call.position,
        "source": call.source.value,
        "judge": call.usage.judge,
        "model": call.usage.model,
        "status": call.status or None,
        "started_at": moment(call.started_at),
        "seconds": call.seconds,
        "prompt_tokens": call.usage.prompt_tokens,
        "completion_tokens": call.usage.completion_tokens,
        "cached_tokens": call.usage.cached_tokens,
        "reasoning_tokens": call.usage.reasoning_tokens,
        "cost": call.usage.cost if math.isfinite(call.usage.cost or 0.0) else None,
        "endpoint": None if body is None else body.endpoint or None,
        "request": None if body is None else _json(body.request),
        "reply": None if body is None else _json(body.reply),
        "error": None if body is None else body.error or None,
    }


def _json(content: bytes) -> Any:
    """The strict JSON value of a body, or its text."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return content.decode(errors="replace")


def _heading(call: StoredCall) -> str:
    usage = call.usage
    parts = [f"{call.position + 1}.", usage.model, "" if call.body is None else call.body.endpoint]
    parts += ["judge" if usage.judge else "", call.source.value if call.source != "live" else ""]
    parts += ["" if call.status == 200 else f"status {call.status}"]
    parts += [duration(call.seconds)]
    if usage.prompt_tokens or usage.completion_tokens:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
    return "  ".join(part for part in parts if part)


def _print_message(console: Console, role: str, text: str) -> None:
    cut = f"\n... and {len(text) - _CHARACTERS_SHOWN:,} characters more" if len(text) > _CHARACTERS_SHOWN else ""
    console.print(f"    {role}:", style="dim", soft_wrap=True)
    console.print(indented(f"{text[:_CHARACTERS_SHOWN]}{cut}", 6), soft_wrap=True)

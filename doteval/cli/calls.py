"""Prints the calls of a row as a conversation, and describes them for `--json`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from doteval.analysis.readable_values import chat_messages, readable
from doteval.cli.readable import indented
from doteval.core import lenient_json
from doteval.core.call_bodies import CallBody
from doteval.core.call_journal import CallSource
from doteval.core.wording import counted, duration

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.core.experiments import Evaluation
    from doteval.store import Store, StoredCall

_CHARACTERS_SHOWN = 10_000


def calls_of_row(store: Store, evaluation: Evaluation, index: int) -> list[StoredCall]:
    """The calls of a row: of a rescored one, before its own, those that it replays from the experiments before it."""
    from doteval.errors import NotFoundError

    own = store.calls.of_row(evaluation.id, index)
    rescoring = evaluation.config.rescoring
    for uid in rescoring.sources if rescoring is not None else ():
        try:
            source = store.evaluations.by_uid(uid)
        except NotFoundError:
            # It was deleted with its calls.
            continue
        replayed = store.calls.of_row(source.id, index, last=True)
        own = [*(replace(call, source=CallSource.REPLAY) for call in replayed), *own]
    return own


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
            asked = _asked(call.body)
            for role, text in asked[_common(shown, asked) :]:
                _print_message(console, role, text)
            answered = _answered(call.body)
            for role, text in answered:
                _print_message(console, role, text)
            if call.body.error:
                console.print(f"    error: {call.body.error}", style="red", soft_wrap=True)
            shown = [*asked, *answered]


def call_document(call: StoredCall) -> dict[str, Any]:
    """A call for `--json`. Bodies that are no JSON, such as streams, are texts."""
    from doteval.cli.documents import moment

    body = call.body
    return {
        "sample": call.sample,
        # As a text: it is larger than the numbers that JSON readers hold exactly.
        "execution": f"{call.execution:016x}",
        "position": call.position,
        "source": call.source,
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
    parts += [call.source.value if call.source != "live" else "", "" if call.status == 200 else f"status {call.status}"]
    parts += [duration(call.seconds)]
    if usage.prompt_tokens or usage.completion_tokens:
        parts.append(f"{usage.prompt_tokens:,} + {usage.completion_tokens:,} tokens")
    return "  ".join(part for part in parts if part)


def _print_message(console: Console, role: str, text: str) -> None:
    cut = f"\n... and {len(text) - _CHARACTERS_SHOWN:,} characters more" if len(text) > _CHARACTERS_SHOWN else ""
    console.print(f"    {role}:", style="dim", soft_wrap=True)
    console.print(indented(f"{text[:_CHARACTERS_SHOWN]}{cut}", 6), soft_wrap=True)


def _common(before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> int:
    """How many messages both begin with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    return sum(1 for _ in same)


def _asked(body: CallBody) -> list[tuple[str, str]]:
    """The messages of a request with their roles, or the whole request."""
    value = _value(body.request)
    if isinstance(value, dict):
        for name in ("messages", "input"):
            messages = chat_messages(value.get(name))
            if messages is not None:
                return messages
        if isinstance(value.get("input"), str):
            return [("user", value["input"])]
    return [("request", readable(value))] if body.request else []


def _answered(body: CallBody) -> list[tuple[str, str]]:
    """The messages of a reply with their roles, or the whole reply."""
    if not body.reply:
        return []
    if body.content_type.startswith("text/event-stream"):
        return [("assistant", "".join(_streamed(body.reply)))]
    value = _value(body.reply)
    if isinstance(value, dict):
        choices = value.get("choices")
        if isinstance(choices, list):
            messages = chat_messages([each.get("message") for each in choices if isinstance(each, dict)])
            if messages is not None:
                return messages
        outputs = value.get("output")
        if isinstance(outputs, list):
            found = [chat_messages([each]) or [("assistant", readable(each))] for each in outputs]
            return [message for messages in found for message in messages]
        vectors = value.get("data")
        if body.endpoint == "/embeddings" and isinstance(vectors, list):
            return [("embeddings", counted(len(vectors), "vector"))]
    return [("reply", readable(value))]


def _streamed(reply: bytes) -> Iterator[str]:
    """The text in the events of a stream; tool calls as JSON."""
    from doteval.clients.streams import events_in

    for event in events_in(reply):
        value = _value(event.data)
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("delta"), str):
            yield value["delta"]
        choices = value.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            delta = choice.get("delta") if isinstance(choice, dict) else None
            if isinstance(delta, dict):
                yield delta["content"] if isinstance(delta.get("content"), str) else ""
                yield readable(delta["tool_calls"]) if delta.get("tool_calls") else ""


def _value(content: bytes) -> Any:
    """The JSON value of a body, or its text."""
    try:
        return lenient_json.loads(content)
    except ValueError:
        return content.decode(errors="replace")

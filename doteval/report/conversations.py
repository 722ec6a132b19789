"""The calls of a row as conversations: what was asked, and what the model answered."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from doteval.analysis.readable_values import chat_messages, readable
from doteval.core import lenient_json
from doteval.core.call_bodies import CallBody
from doteval.core.call_journal import CallSource
from doteval.core.experiments import Evaluation
from doteval.core.wording import counted
from doteval.errors import NotFoundError
from doteval.store import Store, StoredCall


def calls_of_row(store: Store, evaluation: Evaluation, index: int) -> list[StoredCall]:
    """The calls of a row: of a rescored one, before its own, those that it replays from the experiments before it."""
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


def messages_in_common(before: Sequence[tuple[str, str]], now: Sequence[tuple[str, str]]) -> int:
    """How many messages both begin with."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, now, strict=False))
    return sum(1 for _ in same)


def asked(body: CallBody) -> list[tuple[str, str]]:
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


def answered(body: CallBody) -> list[tuple[str, str]]:
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

"""Decides which replies are worth keeping: complete ones that have an output.

A reply without output would fail the same row again and again, and asking once more costs little.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doteval.clients.streams import events_in, is_done
from doteval.core import lenient_json

_UNFINISHED = frozenset({"failed", "in_progress", "queued", "cancelled"})
# Where the parts of chat completions, whole or streamed, have their output.
_MESSAGE_OUTPUTS = ("content", "tool_calls", "function_call", "refusal", "audio", "images")


def is_worth_keeping(content: bytes, *, events: bool) -> bool:
    r"""Whether the body of a successful reply is complete and has an output.

    events: whether the body consists of server-sent events.

    >>> is_worth_keeping(b'{"choices": [{"message": {"content": "yes"}}]}', events=False)
    True
    >>> is_worth_keeping(b'{"choices": []}', events=False)
    False
    """
    try:
        if events:
            return _is_stream_complete(content)
        reply = lenient_json.loads(content)
    except ValueError:
        return False
    return not isinstance(reply, dict) or _is_complete(reply)


def _is_complete(reply: Mapping[str, Any]) -> bool:
    if reply.get("error") or reply.get("status") in _UNFINISHED:
        return False
    if "choices" in reply:
        return _have_output(reply["choices"])
    # The Responses API, embeddings and moderations have these fields. Replies of other APIs are always kept.
    return all(reply[name] for name in ("output", "data", "results") if name in reply)


def _is_stream_complete(content: bytes) -> bool:
    is_complete = has_output = False
    for event in events_in(content):
        if is_done(event):
            is_complete = True
            break
        value = lenient_json.loads(event.data)
        if not isinstance(value, dict):
            continue
        if value.get("error") or event.name == b"error":
            return False
        if value.get("type") == "response.completed":
            return _is_complete(value["response"]) if isinstance(value.get("response"), dict) else False
        has_output = has_output or _have_output(value.get("choices"))
    return is_complete and has_output


def _have_output(choices: Any) -> bool:
    if not isinstance(choices, list):
        return False
    return any(isinstance(choice, dict) and _has_output(choice) for choice in choices)


def _has_output(choice: Mapping[str, Any]) -> bool:
    if choice.get("text"):
        return True
    parts = choice.get("message") or choice.get("delta")
    return isinstance(parts, dict) and any(parts.get(name) for name in _MESSAGE_OUTPUTS)

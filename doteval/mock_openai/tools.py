"""Decides whether a reply calls a tool: the first tool once, and with its result in the conversation a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.json_values import fitting_value

_RESULTS = frozenset({"tool", "function"})


def tool_called(
    body: Mapping[str, Any], conversation: object, key: bytes, wanted: str | None
) -> tuple[str, str] | None:
    """The name and the JSON arguments of the function to call, or None for a reply in words.

    conversation: the messages or input items. wanted: the function that a marker in the prompt names.

    >>> tool_called({"tools": [{"type": "function", "function": {"name": "now"}}]}, [], b"", None)
    ('now', '{}')

    Raises RequestError for a tool that is not in the request.
    """
    given = body.get("tools")
    if not isinstance(given, list) or not given:
        return None
    # The Responses API has the fields of a function in the tool, chat completions one level below.
    functions = [tool.get("function", tool) for tool in given if tool.get("type", "function") == "function"]
    choice = body.get("tool_choice")
    if choice == "none" or not functions:
        return None
    if isinstance(choice, Mapping):
        chosen = choice.get("function", choice).get("name")
        wanted = chosen if isinstance(chosen, str) else wanted
    elif choice != "required" and _has_result(conversation):
        return None
    named = [function for function in functions if wanted in (None, function.get("name"))]
    if not named:
        raise RequestError(f"Tool choice '{wanted}' not found in 'tools' parameter.", param="tool_choice")
    arguments = fitting_value({"type": "object", **(named[0].get("parameters") or {})}, key)
    return str(named[0].get("name")), orjson.dumps(arguments).decode()


def _has_result(conversation: object) -> bool:
    """Whether a tool's result follows the last message of the user."""
    if not isinstance(conversation, Sequence):
        return False
    for message in reversed(conversation):
        if isinstance(message, Mapping):
            if message.get("role") == "user":
                return False
            if message.get("role") in _RESULTS or message.get("type") == "function_call_output":
                return True
    return False

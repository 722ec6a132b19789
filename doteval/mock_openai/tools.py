"""Decides whether a reply calls a tool.

Without markers in the prompt it is the first tool, once, and with its result in the conversation a text. With markers
each turn calls the tool of the next one, and a text comes after the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from doteval.mock_openai.errors import RequestError
from doteval.mock_openai.json_values import fitting_value

_RESULTS = frozenset({"tool", "function"})


def tool_called(
    body: Mapping[str, Any], conversation: object, key: bytes, markers: Sequence[str] = ()
) -> tuple[str, str] | None:
    """The name and the JSON arguments of the function to call, or None for a reply in words.

    conversation: the messages or input items. markers: the calls that the prompt asks for, in their order: the name of
    a function, and after a space its arguments if they are not to be made up.

    >>> tool_called({"tools": [{"type": "function", "function": {"name": "now"}}]}, [], b"")
    ('now', '{}')

    Raises RequestError for a tool that is not in the request, and for arguments that are not JSON.
    """
    given = body.get("tools")
    if not isinstance(given, list) or not given:
        return None
    # The Responses API has the fields of a function in the tool, chat completions one level below.
    functions = [tool.get("function", tool) for tool in given if tool.get("type", "function") == "function"]
    choice = body.get("tool_choice")
    if choice == "none" or not functions:
        return None
    results = _results(conversation)
    wanted, _, arguments = markers[min(results, len(markers) - 1)].partition(" ") if markers else (None, "", "")
    if isinstance(choice, Mapping):
        chosen = choice.get("function", choice).get("name")
        wanted = chosen if isinstance(chosen, str) else wanted
    elif choice != "required" and results >= max(1, len(markers)):
        return None
    named = [function for function in functions if wanted in (None, function.get("name"))]
    if not named:
        raise RequestError(f"Tool choice '{wanted}' not found in 'tools' parameter.", param="tool_choice")
    if arguments:
        try:
            orjson.loads(arguments)
        except ValueError as error:
            raise RequestError(f"the arguments in the marker [[tool:{wanted} ...]] are no JSON: {error}") from None
    else:
        made_up = fitting_value({"type": "object", **(named[0].get("parameters") or {})}, key)
        arguments = orjson.dumps(made_up).decode()
    return str(named[0].get("name")), arguments


def _results(conversation: object) -> int:
    """The number of results of tools after the last message of the user."""
    count = 0
    for message in reversed(conversation) if isinstance(conversation, Sequence) else ():
        if isinstance(message, Mapping):
            if message.get("role") == "user":
                break
            count += message.get("role") in _RESULTS or message.get("type") == "function_call_output"
    return count

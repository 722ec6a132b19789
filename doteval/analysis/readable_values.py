"""Values of rows as text for people: chats as conversations, lists and objects as indented JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from doteval.core.json_codec import encode

# Columns that by their name hold what the model should have answered.
_EXPECTED = ("expected", "answer", "target", "label", "reference", "gold", "solution", "output")


def readable(value: Any) -> str:
    """A value as text: texts as they are, lists and objects as indented JSON.

    >>> print(readable({"a": [1, 2]}))
    {
      "a": [
        1,
        2
      ]
    }
    """
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | tuple):
        return orjson.dumps(orjson.loads(encode(value)), option=orjson.OPT_INDENT_2).decode()
    if type(value).__module__.startswith("PIL."):
        # Its own text has an address in memory, which says nothing and differs each time.
        return f"[image, {value.width} × {value.height} pixels, {value.mode}]"
    return str(value)


def short_value(value: Any, characters: int = 80) -> str:
    """A value as one line for a table: figures with four digits, texts cut, a dash for None.

    >>> short_value(0.123456), short_value("two   lines"), short_value(True), short_value(None)
    ('0.1235', 'two lines', 'true', '-')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.4g}"
    is_json = isinstance(value, dict | list | tuple) and chat_messages(value) is None
    text = encode(value) if is_json else as_text(value)
    # Only the beginning is looked at: values may have megabytes.
    line = " ".join(text[: 4 * characters].split())
    return line if len(line) <= characters and len(text) <= 4 * characters else f"{line[: characters - 1]}…"


def as_text(value: Any) -> str:
    """A prompt or a response as text: a chat as its messages, with their roles if there are several.

    >>> as_text([{"role": "user", "content": "Hello"}])
    'Hello'
    """
    messages = chat_messages(value)
    if messages is None:
        return readable(value)
    return messages[0][1] if len(messages) == 1 else "\n".join(f"{role}: {text}" for role, text in messages)


def chat_messages(value: Any) -> list[tuple[str, str]] | None:
    """The messages of a chat with their roles, None for anything else.

    Calls of tools are shown as calls in Python, images that are data by their type and size.

    >>> call = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    >>> chat_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])
    [('assistant', 'add(x=1)')]
    """
    messages = value.get("messages") if isinstance(value, dict) and set(value) == {"messages"} else value
    if not isinstance(messages, list) or not messages:
        return None
    found = []
    for message in messages:
        if not isinstance(message, Mapping):
            return None
        if message.get("type") in ("function_call", "function_call_output"):
            found.append(_tool_item(message))
            continue
        if not isinstance(message.get("role"), str):
            return None
        calls = _calls(message.get("tool_calls"))
        shown = {"role", "content", *(["tool_calls"] if calls else [])}
        if message["role"] == "tool":
            # Results come in the order of the calls.
            shown.add("tool_call_id")
        # Replies name fields that they do not use, with null or an empty list.
        others = {name: each for name, each in message.items() if name not in shown and each not in (None, [])}
        parts = [_content(message.get("content")), *calls, readable(others) if others else ""]
        found.append((message["role"], "\n".join(part for part in parts if part)))
    return found


def _content(content: Any) -> str:
    """The text of a message; parts that are neither text nor an image as JSON."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return readable(content)
    return "\n".join(map(_part, content))


def _part(part: Any) -> str:
    if not isinstance(part, Mapping):
        return readable(part)
    if isinstance(part.get("text"), str):
        return str(part["text"])
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, Mapping) else image
    if not isinstance(url, str):
        return readable(part)
    kind, comma, data = url.removeprefix("data:").partition(",") if url.startswith("data:") else (url, "", "")
    return f"[{kind.partition(';')[0]}, {len(data) * 3 // 4:,} bytes]" if comma else f"[image {url}]"


def _calls(calls: Any) -> list[str]:
    """The calls of tools in a message, each as a call in Python; empty if one of them is no call of a function."""
    if not isinstance(calls, list):
        return []
    functions = [each.get("function") if isinstance(each, Mapping) else None for each in calls]
    if not all(isinstance(each, Mapping) and isinstance(each.get("name"), str) for each in functions):
        return []
    return [_call(each["name"], each.get("arguments")) for each in functions if each is not None]


def _call(name: str, arguments: Any) -> str:
    try:
        given = orjson.loads(arguments) if isinstance(arguments, str) else arguments
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, Mapping):
        return f"{name}({readable(arguments) if arguments else ''})"
    return f"{name}({', '.join(f'{argument}={encode(value)}' for argument, value in given.items())})"


def _tool_item(item: Mapping[str, Any]) -> tuple[str, str]:
    """A call of a function, or its result, as the Responses API has them beside the messages."""
    if item["type"] == "function_call":
        return "assistant", _call(str(item.get("name")), item.get("arguments"))
    return "tool", _content(item.get("output"))


def expected_column(values: Mapping[str, Any]) -> str | None:
    """The column of a row that by its name holds what the model should have answered, as a text.

    >>> expected_column({"question": "1 + 1?", "answer": "2"})
    'answer'
    """
    return next((each for each in _EXPECTED if isinstance(values.get(each), str)), None)

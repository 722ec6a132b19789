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
    """The messages of a chat with their roles, None for anything else."""
    messages = value.get("messages") if isinstance(value, dict) and set(value) == {"messages"} else value
    if not isinstance(messages, list) or not messages:
        return None
    found = []
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return None
        # Replies name fields that they do not use, with null or an empty list.
        others = {
            name: each for name, each in message.items() if name not in ("role", "content") and each not in (None, [])
        }
        parts = [_content(message.get("content")), readable(others) if others else ""]
        found.append((message["role"], "\n".join(part for part in parts if part)))
    return found


def _content(content: Any) -> str:
    """The text of a message; parts that are no text, such as images, as JSON."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return readable(content)
    texts = [each["text"] if isinstance(each, dict) and isinstance(each.get("text"), str) else None for each in content]
    return "\n".join(readable(each) if text is None else text for each, text in zip(content, texts, strict=True))


def expected_column(values: Mapping[str, Any]) -> str | None:
    """The column of a row that by its name holds what the model should have answered, as a text.

    >>> expected_column({"question": "1 + 1?", "answer": "2"})
    'answer'
    """
    return next((each for each in _EXPECTED if isinstance(values.get(each), str)), None)

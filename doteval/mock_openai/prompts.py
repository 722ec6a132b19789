"""Reads the prompt of a request.

Tokens are counted as the whitespace-separated words of a text; the roles and the framing of messages count nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doteval.mock_openai.errors import RequestError, missing


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of a request: `text` is all of it, `last` the last user message."""

    model: str
    text: str
    last: str

    @property
    def key(self) -> bytes:
        """A digest of the text, the same in every process."""
        return hashlib.blake2b(self.text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Tokens:
    """The counts of one reply's usage. `completion` includes `reasoning`, `prompt` includes `cached`."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


def count_tokens(text: str) -> int:
    """The number of words.

    >>> count_tokens("two words")
    2
    """
    return len(text.split())


def _text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return ""


def read_prompt(body: Mapping[str, Any], field: str) -> Prompt:
    """The prompt of a request body, whose text is in `field`: ``messages`` or ``input``.

    Raises RequestError if the body has no model or no prompt.
    """
    model, given = body.get("model"), body.get(field)
    if not isinstance(model, str) or not model:
        raise RequestError("you must provide a model parameter")
    instructions = _text_of(body.get("instructions"))
    if isinstance(given, str):
        return Prompt(model, f"{instructions}\n{given}" if instructions else given, given)
    if not isinstance(given, list) or not given:
        raise missing(field)
    texts = [instructions] if instructions else []
    last = ""
    for message in given:
        if isinstance(message, dict):
            # A call of a tool and its result have no content in the Responses API.
            texts.append(_text_of(message.get("content") or message.get("output") or message.get("arguments")))
            if message.get("role") == "user":
                last = texts[-1]
        else:
            texts.append(str(message))
    return Prompt(model, "\n".join(texts), last)

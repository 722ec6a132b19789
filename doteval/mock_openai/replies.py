"""Reads requests and makes replies, as pure functions without HTTP.

Tokens are counted as the whitespace-separated words of a text; the roles and the framing of
messages count nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_POSITIVE_WORDS = """
    amazing awesome beautiful best brilliant delightful enjoyed excellent fantastic good great happy
    impressive like liked love loved lovely nice outstanding perfect pleased recommend superb wonderful
"""
_NEGATIVE_WORDS = """
    annoying awful bad boring broken disappointed disappointing dreadful hate hated horrible mediocre
    pathetic poor sad slow terrible ugly unhappy useless waste worse worst
"""
POSITIVE = frozenset(_POSITIVE_WORDS.split())
NEGATIVE = frozenset(_NEGATIVE_WORDS.split())
_WORD = re.compile(r"[a-z']+")
# A word with the blanks before it; the last one also with those after it.
_PIECE = re.compile(r"(?<!\s)\s*\S+(?:\s+\Z)?")
_NEGATIONS = frozenset({"not", "never", "no", "isn't", "wasn't", "don't", "didn't", "doesn't"})

EMBEDDING_DIMENSIONS = 8


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


def sentiment_of(text: str) -> str:
    """``positive``, ``negative`` or ``neutral``, by a small word list; a negation inverts the next two words.

    >>> sentiment_of("not bad at all")
    'positive'
    """
    balance = 0
    inverted = 0
    for word in _WORD.findall(text.lower()):
        weight = (word in POSITIVE) - (word in NEGATIVE)
        balance += -weight if inverted else weight
        inverted = 2 if word in _NEGATIONS else max(0, inverted - 1)
    return "positive" if balance > 0 else "negative" if balance < 0 else "neutral"


def reply_text(rule: str, prompt: Prompt) -> str:
    """The text of the reply by a rule of `MockSettings.reply`.

    ``auto`` answers a prompt that contains "sentiment" with the sentiment of the last user message, and any other with
    ``mock reply DIGEST``, the same for the same prompt.
    """
    match rule:
        case "auto":
            if "sentiment" in prompt.text.lower():
                return sentiment_of(prompt.last)
            return f"mock reply {prompt.key.hex()}"
        case "echo":
            return prompt.last
        case _:
            return rule


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

    Raises ValueError, with a message for an error reply, if the body has no model or no prompt.
    """
    model, given = body.get("model"), body.get(field)
    if not isinstance(model, str) or not model:
        raise ValueError("you must provide a model parameter")
    instructions = _text_of(body.get("instructions"))
    if isinstance(given, str):
        return Prompt(model, f"{instructions}\n{given}" if instructions else given, given)
    if not isinstance(given, list) or not given:
        raise ValueError(f"missing required parameter: {field!r}")
    texts = [instructions] if instructions else []
    last = ""
    for message in given:
        if isinstance(message, dict):
            texts.append(_text_of(message.get("content")))
            if message.get("role") == "user":
                last = texts[-1]
        else:
            texts.append(str(message))
    return Prompt(model, "\n".join(texts), last)


def chat_usage(tokens: Tokens) -> dict[str, Any]:
    """The usage object of a chat completion."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning, "audio_tokens": 0},
    }


def chat_completion(serial: int, model: str, text: str, tokens: Tokens, finish: str) -> dict[str, Any]:
    """The body of a chat completion."""
    return {
        "id": f"chatcmpl-mock-{serial}",
        "object": "chat.completion",
        "created": 1700000000,
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": finish,
            }
        ],
        "usage": chat_usage(tokens),
    }


def chat_chunks(
    serial: int, model: str, text: str, tokens: Tokens, finish: str, include_usage: bool
) -> Iterator[dict[str, Any]]:
    """The events of a streamed chat completion: role, words, finish reason, and the usage if it was asked for."""
    head = {
        "id": f"chatcmpl-mock-{serial}",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": model,
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice], **({"usage": None} if include_usage else {})}

    yield chunk({"role": "assistant", "content": ""})
    for piece in _PIECE.findall(text):
        yield chunk({"content": piece})
    yield chunk({}, finish)
    if include_usage:
        yield {**head, "choices": [], "usage": chat_usage(tokens)}


def response(serial: int, model: str, text: str, tokens: Tokens, finish: str) -> dict[str, Any]:
    """The body of a reply of the Responses API."""
    return {
        "id": f"resp_mock_{serial}",
        "object": "response",
        "created_at": 1700000000,
        "status": "completed" if finish == "stop" else "incomplete",
        "error": None,
        "incomplete_details": None if finish == "stop" else {"reason": "max_output_tokens"},
        "instructions": None,
        "metadata": {},
        "model": model,
        "output": [
            {
                "type": "message",
                "id": f"msg_mock_{serial}",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        ],
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {
            "input_tokens": tokens.prompt,
            "input_tokens_details": {"cached_tokens": tokens.cached},
            "output_tokens": tokens.completion,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.prompt + tokens.completion,
        },
    }


def response_events(whole: Mapping[str, Any], text: str) -> Iterator[dict[str, Any]]:
    """The events of a streamed response: created, words, and the whole response with its usage."""
    started = {**whole, "status": "in_progress", "incomplete_details": None, "output": [], "usage": None}
    yield {"type": "response.created", "sequence_number": 0, "response": started}
    number = 0
    for number, piece in enumerate(_PIECE.findall(text), start=1):
        yield {
            "type": "response.output_text.delta",
            "sequence_number": number,
            "item_id": whole["output"][0]["id"],
            "output_index": 0,
            "content_index": 0,
            "delta": piece,
            "logprobs": [],
        }
    yield {"type": f"response.{whole['status']}", "sequence_number": number + 1, "response": whole}


def embeddings(model: str, texts: Sequence[str], tokens: Tokens, dimensions: int, encoding: str) -> dict[str, Any]:
    """The body of an embeddings reply: vectors derived from the texts, with components in [-1, 1]."""
    data: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        stream = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
        vector = [component / 32768 for component in struct.unpack(f"<{dimensions}h", stream)]
        packed = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if encoding == "base64" else vector})
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens.prompt, "total_tokens": tokens.prompt},
    }


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of an error reply."""
    kind = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    code = {401: "invalid_api_key", 429: "rate_limit_exceeded"}.get(status)
    return {"error": {"message": message, "type": kind.get(status, "server_error"), "param": None, "code": code}}

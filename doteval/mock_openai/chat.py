"""``/v1/chat/completions``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from doteval.mock_openai.errors import RequestError, of_status, of_type
from doteval.mock_openai.prompts import Tokens, count_tokens
from doteval.mock_openai.replies import CREATED, Asked, ModelEndpoint, Reply
from doteval.mock_openai.texts import log_probabilities, pieces, shortened
from doteval.mock_openai.tools import tool_called

_CHOICES_AT_MOST = 128


def _answer(asked: Asked) -> Reply:
    body, effects = asked.body, asked.effects
    form = body.get("response_format")
    if isinstance(form, Mapping) and form.get("type") == "json_object" and "json" not in asked.prompt.text.lower():
        raise RequestError(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            param="messages",
        )
    called = None
    if "tools" in body and (effects.reply is None or effects.tools):
        called = tool_called(body, body.get("messages"), asked.key, effects.tools)
    if called is not None:
        text, finish = called[1], "tool_calls"
        message = _message(None, [_call(asked.serial, *called)])
    else:
        limit, param = body.get("max_completion_tokens"), "max_completion_tokens"
        if limit is None:
            limit, param = body.get("max_tokens"), "max_tokens"
        text, finish = shortened(asked.text(form), limit, param, body.get("stop"))
        message = _message(text)
    count = body.get("n")
    if count is None:
        count = 1
    elif not isinstance(count, int):
        raise of_type("n", "an integer", count)
    elif not 1 <= count <= _CHOICES_AT_MOST:
        raise RequestError(f"Invalid 'n': expected a value from 1 to {_CHOICES_AT_MOST}, but got {count}.", param="n")
    logprobs = _logprobs(body, text) if called is None else None
    tokens = Tokens(
        count_tokens(asked.prompt.text),
        count * max(count_tokens(text), called is not None) + effects.reasoning_tokens,
        effects.cached_tokens,
        effects.reasoning_tokens,
    )
    payload: dict[str, Any] = {
        "id": f"chatcmpl-mock-{asked.serial}",
        "object": "chat.completion",
        "created": CREATED,
        "model": asked.prompt.model,
        "choices": [
            {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
            for index in range(count)
        ],
        "usage": _usage(tokens),
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }
    if not body.get("stream"):
        return Reply(payload, tokens)
    include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return Reply(payload, tokens, _events(payload, include_usage), include_usage)


def _message(text: str | None, tool_calls: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    if tool_calls:
        message["tool_calls"] = tool_calls
    return message


def _call(serial: int | str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": f"call_mock_{serial}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _logprobs(body: Mapping[str, Any], text: str) -> dict[str, Any] | None:
    top = body.get("top_logprobs")
    if not body.get("logprobs"):
        if top is not None:
            raise RequestError("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
        return None
    if top is not None and not isinstance(top, int):
        raise of_type("top_logprobs", "an integer", top)
    return {"content": list(log_probabilities(text, min(top or 0, 20))), "refusal": None}


def _usage(tokens: Tokens) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _chunks(payload: Mapping[str, Any], include_usage: bool) -> Iterator[dict[str, Any]]:
    """Role, words or a call's arguments, and finish reason of each choice; then the usage if it was asked for."""
    head = {**payload, "object": "chat.completion.chunk"}
    del head["usage"]
    if include_usage:
        head["usage"] = None

    def chunk(index: int, delta: dict[str, Any], logprobs: Any = None, finish: str | None = None) -> dict[str, Any]:
        return {**head, "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}

    for choice in payload["choices"]:
        index, message = choice["index"], choice["message"]
        calls = message.get("tool_calls", ())
        yield chunk(index, {"role": "assistant", "content": None if calls else "", "refusal": None})
        for number, call in enumerate(calls):
            opened = {**call, "function": {**call["function"], "arguments": ""}}
            yield chunk(index, {"tool_calls": [{"index": number, **opened}]})
            for piece in pieces(call["function"]["arguments"]):
                yield chunk(index, {"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
        listed = (choice["logprobs"] or {}).get("content")
        for at, piece in enumerate(pieces(message["content"] or "")):
            likely = {"content": [listed[at]], "refusal": None} if listed else None
            yield chunk(index, {"content": piece}, likely)
    for choice in payload["choices"]:
        yield chunk(choice["index"], {}, finish=choice["finish_reason"])
    if include_usage:
        yield {**head, "choices": [], "usage": payload["usage"]}


def _events(payload: Mapping[str, Any], include_usage: bool) -> Iterator[bytes]:
    for chunk in _chunks(payload, include_usage):
        yield b"data: %b\n\n" % orjson.dumps(chunk)
    yield b"data: [DONE]\n\n"


def _error_event(_before: int) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(of_status(500).body)


CHAT = ModelEndpoint("chat", "messages", _answer, _error_event)

"""``/v1/responses``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from doteval.mock_openai.errors import RequestError, of_status
from doteval.mock_openai.prompts import Tokens, count_tokens
from doteval.mock_openai.replies import CREATED, Asked, ModelEndpoint, Reply
from doteval.mock_openai.texts import log_probabilities, pieces, shortened
from doteval.mock_openai.tools import tool_called

_LOGPROBS = "message.output_text.logprobs"


def _answer(asked: Asked) -> Reply:
    body, effects = asked.body, asked.effects
    if body.get("previous_response_id") is not None:
        # Nothing is kept of a request that is answered.
        raise RequestError(
            f"Previous response with id '{body['previous_response_id']}' not found.",
            param="previous_response_id",
            code="previous_response_not_found",
        )
    called = None
    if "tools" in body and (effects.reply is None or effects.tools):
        called = tool_called(body, body.get("input"), asked.key, effects.tools)
    settings = body.get("text")
    form = settings.get("format") if isinstance(settings, Mapping) else None
    if called is not None:
        text, finish = called[1], "stop"
        item = _call(asked.serial, *called)
    else:
        text, finish = shortened(asked.text(form), body.get("max_output_tokens"), "max_output_tokens")
        listed = list(log_probabilities(text, _top(body))) if _LOGPROBS in (body.get("include") or ()) else []
        item = _message(asked.serial, text, listed, finish)
    tokens = Tokens(
        count_tokens(asked.prompt.text),
        max(count_tokens(text), called is not None) + effects.reasoning_tokens,
        effects.cached_tokens,
        effects.reasoning_tokens,
    )
    payload = _response(asked, item, form, tokens, finish)
    return Reply(payload, tokens, _events(payload) if body.get("stream") else None)


def _top(body: Mapping[str, Any]) -> int:
    top = body.get("top_logprobs")
    return min(top, 20) if isinstance(top, int) else 0


def _message(serial: int | str, text: str, logprobs: list[dict[str, Any]], finish: str) -> dict[str, Any]:
    return {
        "type": "message",
        "id": f"msg_mock_{serial}",
        "status": "completed" if finish == "stop" else "incomplete",
        "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}],
    }


def _call(serial: int | str, name: str, arguments: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_mock_{serial}",
        "call_id": f"call_mock_{serial}",
        "status": "completed",
        "name": name,
        "arguments": arguments,
    }


def _given(body: Mapping[str, Any], name: str, default: Any) -> Any:
    value = body.get(name)
    return default if value is None else value


def _tools(body: Mapping[str, Any]) -> list[Any]:
    filled: dict[str, Any] = {"description": None, "parameters": {}, "strict": True}
    tools = _given(body, "tools", [])
    return [{**filled, **tool} if tool.get("type") == "function" else tool for tool in tools]


def _response(asked: Asked, item: dict[str, Any], form: object, tokens: Tokens, finish: str) -> dict[str, Any]:
    body = asked.body
    return {
        "id": f"resp_mock_{asked.serial}",
        "object": "response",
        "created_at": CREATED,
        "status": "completed" if finish == "stop" else "incomplete",
        "background": False,
        "completed_at": CREATED,
        "error": None,
        "incomplete_details": None if finish == "stop" else {"reason": "max_output_tokens"},
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "max_tool_calls": body.get("max_tool_calls"),
        "metadata": _given(body, "metadata", {}),
        "model": asked.prompt.model,
        "output": [item],
        "parallel_tool_calls": _given(body, "parallel_tool_calls", True),
        "previous_response_id": None,
        "prompt_cache_key": body.get("prompt_cache_key"),
        "reasoning": _given(body, "reasoning", {"effort": None, "summary": None}),
        "safety_identifier": body.get("safety_identifier"),
        "service_tier": "default",
        "temperature": _given(body, "temperature", 1.0),
        "text": {"format": form or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": _given(body, "tool_choice", "auto"),
        "tools": _tools(body),
        "top_logprobs": _top(body),
        "top_p": _given(body, "top_p", 1.0),
        "truncation": _given(body, "truncation", "disabled"),
        "usage": {
            "input_tokens": tokens.prompt,
            "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
            "output_tokens": tokens.completion,
            "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
            "total_tokens": tokens.prompt + tokens.completion,
        },
        "user": body.get("user"),
    }


def _stream(whole: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The events without their numbers: the response begins, its one item is made, the response ends."""
    begun = {
        **whole,
        "status": "in_progress",
        "completed_at": None,
        "incomplete_details": None,
        "output": [],
        "usage": None,
    }
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    item = whole["output"][0]
    place = {"item_id": item["id"], "output_index": 0}
    if item["type"] == "function_call":
        opened = {**item, "status": "in_progress", "arguments": ""}
        yield {"type": "response.output_item.added", "output_index": 0, "item": opened}
        for piece in pieces(item["arguments"]):
            yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
        done = {"type": "response.function_call_arguments.done", **place}
        yield {**done, "arguments": item["arguments"]}
    else:
        opened = {**item, "status": "in_progress", "content": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": opened}
        [part] = item["content"]
        place["content_index"] = 0
        yield {"type": "response.content_part.added", **place, "part": {**part, "text": "", "logprobs": []}}
        likely = [_likely(one) for one in part["logprobs"]]
        for number, piece in enumerate(pieces(part["text"])):
            yield {
                "type": "response.output_text.delta",
                **place,
                "delta": piece,
                "logprobs": likely[number : number + 1],
            }
        yield {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": likely}
        yield {"type": "response.content_part.done", **place, "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": f"response.{whole['status']}", "response": whole}


def _likely(one: Mapping[str, Any]) -> dict[str, Any]:
    """A log probability as events have it: without bytes."""
    names = ("token", "logprob")
    tops = [{name: top[name] for name in names} for top in one["top_logprobs"]]
    return {**{name: one[name] for name in names}, "top_logprobs": tops}


def _encoded(event: Mapping[str, Any], number: int) -> bytes:
    kind = str(event["type"]).encode()
    return b"event: %b\ndata: %b\n\n" % (kind, orjson.dumps({**event, "sequence_number": number}))


def _events(whole: Mapping[str, Any]) -> Iterator[bytes]:
    for number, event in enumerate(_stream(whole)):
        yield _encoded(event, number)


def _error_event(before: int) -> bytes:
    error = of_status(500)
    event = {"type": "error", "code": "server_error", "message": str(error), "param": None}
    return _encoded(event, before)


RESPONSES = ModelEndpoint("responses", "input", _answer, _error_event)

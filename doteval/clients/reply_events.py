"""Makes the events of a stream from a whole reply, for rows that ask for a stream and are answered by a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from doteval.core import lenient_json

_DONE = b"data: [DONE]\n\n"


def as_events(content: bytes, *, usage: bool = False) -> bytes:
    """The server-sent events of a chat completion or of a response. usage: whether a chat's stream reports it.

    >>> as_events(b'{"object": "chat.completion", "id": "c", "choices": []}').decode().splitlines()[-2:]
    ['data: [DONE]', '']
    """
    reply, dumps = lenient_json.loads_to_write(content)
    if reply.get("object") == "response":
        return b"".join(
            b"event: " + event["type"].encode() + b"\ndata: " + dumps({**event, "sequence_number": number}) + b"\n\n"
            for number, event in enumerate(_of_response(reply))
        )
    return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in _of_chat(reply, usage=usage)) + _DONE


def _of_chat(reply: dict[str, Any], *, usage: bool) -> Iterator[dict[str, Any]]:
    head = {name: value for name, value in reply.items() if name not in ("choices", "usage")}
    head["object"] = "chat.completion.chunk"
    choices = [each for each in reply.get("choices", ()) if isinstance(each, dict)]
    for choice in choices:
        delta = {name: value for name, value in choice.get("message", {}).items() if value is not None}
        if isinstance(delta.get("tool_calls"), list):
            delta["tool_calls"] = [{"index": index, **each} for index, each in enumerate(delta["tool_calls"])]
        yield {**head, "choices": [_choice(choice, delta, None)]}
    for choice in choices:
        yield {**head, "choices": [_choice({**choice, "logprobs": None}, {}, choice.get("finish_reason"))]}
    if usage:
        yield {**head, "choices": [], "usage": reply.get("usage")}


def _choice(choice: dict[str, Any], delta: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    index = choice.get("index", 0)
    return {"index": index, "delta": delta, "logprobs": choice.get("logprobs"), "finish_reason": finish_reason}


def _of_response(reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**reply, "status": "in_progress", "output": [], "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(reply.get("output", ())):
        yield from _of_item(index, item)
    ending = reply.get("status") if reply.get("status") in ("failed", "incomplete") else "completed"
    yield {"type": f"response.{ending}", "response": reply}


def _of_item(index: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    where = {"output_index": index, "item_id": item.get("id", "")}
    content = item.get("content")
    begun = {**item, "status": "in_progress"} | ({"content": []} if isinstance(content, list) else {})
    if item.get("type") == "function_call":
        begun["arguments"] = ""
    yield {"type": "response.output_item.added", "output_index": index, "item": begun}
    for place, part in enumerate(content if isinstance(content, list) else ()):
        at = {**where, "content_index": place}
        if part.get("type") != "output_text":
            yield {"type": "response.content_part.added", **at, "part": part}
            yield {"type": "response.content_part.done", **at, "part": part}
            continue
        text = part.get("text", "")
        yield {"type": "response.content_part.added", **at, "part": {**part, "text": ""}}
        yield {"type": "response.output_text.delta", **at, "delta": text, "logprobs": []}
        yield {"type": "response.output_text.done", **at, "text": text, "logprobs": []}
        yield {"type": "response.content_part.done", **at, "part": part}
    if item.get("type") == "function_call":
        arguments, name = item.get("arguments", ""), item.get("name", "")
        yield {"type": "response.function_call_arguments.delta", **where, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", **where, "arguments": arguments, "name": name}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}

"""Writes prompts and replies as the message schemas of OpenTelemetry's conventions for generative AI have them.

They are texts of rows: only for traces that were asked to have content.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson


def input_messages(body: Mapping[str, Any]) -> dict[str, str]:
    """The attributes that show what a request asks.

    >>> input_messages({"messages": [{"role": "user", "content": "Hi"}]})
    {'gen_ai.input.messages': '[{"role":"user","parts":[{"type":"text","content":"Hi"}]}]'}
    """
    messages: list[Any] = []
    if isinstance(body.get("messages"), list):
        messages = [_message(each) for each in body["messages"]]
    else:
        for name in ("input", "prompt"):
            given = body.get(name)
            if isinstance(given, list) and all(isinstance(each, dict) for each in given):
                # Of the Responses API: messages, and calls of tools with their results.
                messages = [_item(each) for each in given]
            elif given is not None:
                messages = [_said("user", given)]
    attributes = {"gen_ai.input.messages": _json(messages)} if messages else {}
    if isinstance(body.get("instructions"), str):
        attributes["gen_ai.system_instructions"] = _json(_parts(body["instructions"]))
    return attributes


def output_messages(reply: Any) -> dict[str, str]:
    """The attributes that show what a whole reply says. Embeddings are left out.

    >>> output_messages({"choices": [{"message": {"role": "assistant", "content": "Ho"}, "finish_reason": "stop"}]})
    {'gen_ai.output.messages': '[{"role":"assistant","parts":[{"type":"text","content":"Ho"}],"finish_reason":"stop"}]'}
    """
    messages: list[Any] = []
    if isinstance(reply, dict) and isinstance(reply.get("choices"), list):
        for choice in reply["choices"]:
            if isinstance(choice, dict):
                said = choice.get("message")
                message = _message(said) if isinstance(said, dict) else _said("assistant", choice.get("text"))
                messages.append({**message, "finish_reason": choice.get("finish_reason") or ""})
    elif isinstance(reply, dict) and isinstance(reply.get("output"), list):
        messages = [{**_item(each), "finish_reason": str(reply.get("status"))} for each in reply["output"]]
    return {"gen_ai.output.messages": _json(messages)} if messages else {}


def joined_events(values: Iterable[Any]) -> Any:
    """The whole reply that the events of a stream amount to.

    >>> joined_events([{"choices": [{"delta": {"content": word}}]} for word in ("H", "o")])["choices"][0]["message"]
    {'role': 'assistant', 'content': 'Ho'}
    """
    choices: dict[int, dict[str, Any]] = {}
    for value in values:
        if not isinstance(value, dict):
            continue
        if isinstance(value.get("response"), dict) and value["response"].get("output"):
            return value["response"]
        for each in value.get("choices") or ():
            if isinstance(each, dict):
                known = choices.setdefault(each.get("index", 0), {"message": {"role": "assistant", "content": ""}})
                _add(known, each)
    return {"choices": [choices[index] for index in sorted(choices)]}


def _add(choice: dict[str, Any], event: Mapping[str, Any]) -> None:
    """Add one event of a stream to the choice that it belongs to."""
    message, delta = choice["message"], event.get("delta")
    delta = delta if isinstance(delta, dict) else {"content": event.get("text")}
    message["content"] += delta.get("content") or ""
    for call in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        if call.get("id") or not calls:
            calls.append({"id": call.get("id"), "function": {"name": "", "arguments": ""}})
        function = call.get("function") or {}
        for name in ("name", "arguments"):
            calls[-1]["function"][name] += function.get(name) or ""
    if event.get("finish_reason"):
        choice["finish_reason"] = event["finish_reason"]


def _message(message: Any) -> dict[str, Any]:
    """A message of a chat."""
    if not isinstance(message, dict):
        return _said("user", message)
    role, content = str(message.get("role", "user")), message.get("content")
    if role == "tool":
        return {"role": role, "parts": [_tool_response(message.get("tool_call_id"), content)]}
    parts = [] if content in (None, "") else _parts(content)
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        parts.append(_tool_call(call.get("id"), function.get("name"), function.get("arguments")))
    return {"role": role, "parts": parts}


def _item(item: Any) -> dict[str, Any]:
    """An item of the Responses API."""
    if not isinstance(item, dict):
        return _said("user", item)
    kind = item.get("type")
    if kind == "function_call":
        return {
            "role": "assistant",
            "parts": [_tool_call(item.get("call_id"), item.get("name"), item.get("arguments"))],
        }
    if kind == "function_call_output":
        return {"role": "tool", "parts": [_tool_response(item.get("call_id"), item.get("output"))]}
    if "content" in item:
        return _said(str(item.get("role", "assistant")), item["content"])
    return {"role": "assistant", "parts": [_part(item)]}


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "parts": _parts(content)}


def _parts(content: Any) -> list[Any]:
    if isinstance(content, list) and all(isinstance(each, dict) for each in content):
        return [_part(each) for each in content]
    return [{"type": "text", "content": content if isinstance(content, str) else _json(content)}]


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(part.get("text"), str):
        return {"type": "text", "content": part["text"]}
    # Images, audio and files, as the request has them: the schema allows parts of any type.
    return {"type": str(part.get("type", "unknown")), **{name: value for name, value in part.items() if name != "type"}}


def _tool_call(call_id: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call_id, "name": name or "", "arguments": arguments}


def _tool_response(call_id: Any, response: Any) -> dict[str, Any]:
    return {"type": "tool_call_response", "id": call_id, "response": response}


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        # orjson refuses lone surrogates and integers of more than 64 bits.
        return json.dumps(value)

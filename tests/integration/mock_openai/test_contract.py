"""What the mock server replies is what the types of the real `openai` client describe: no less, and no more."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from doteval.mock_openai import MockOpenAI
from tests.support.openai import mock_openai, mock_openai_process

__all__ = ["mock_openai", "mock_openai_process"]

FUNCTION = {
    "name": "find_city",
    "description": "Finds a city.",
    "parameters": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "size": {"enum": ["small", "large"]}},
        "required": ["name", "size"],
        "additionalProperties": False,
    },
    "strict": True,
}
CHAT_TOOLS: Any = [{"type": "function", "function": FUNCTION}]
RESPONSE_TOOLS: Any = [{"type": "function", **FUNCTION}]
SCHEMA = {
    "type": "object",
    "properties": {"grade": {"type": "integer", "minimum": 1, "maximum": 5}, "why": {"type": ["string", "null"]}},
    "required": ["grade", "why"],
    "additionalProperties": False,
}


class Grade(BaseModel):
    """What a structured output is parsed as."""

    grade: int
    why: str | None


@pytest.fixture(scope="module")
def strict_client(mock_openai_process: MockOpenAI) -> Iterator[OpenAI]:
    """One client for a module: it takes longer to make than most requests."""
    url = mock_openai_process.base_url
    with OpenAI(base_url=url, api_key="any", max_retries=0, _strict_response_validation=True) as client:
        yield client


@pytest.fixture
def client(mock_openai: MockOpenAI, strict_client: OpenAI) -> OpenAI:
    return strict_client


def unknown_fields(value: Any, path: str = "") -> list[str]:
    """The fields that the client's types do not have, at any depth."""
    if isinstance(value, BaseModel):
        known = [
            name
            for field in type(value).model_fields
            for name in unknown_fields(getattr(value, field), f"{path}.{field}")
        ]
        return [*(f"{path}.{name}" for name in value.model_extra or {}), *known]
    if isinstance(value, list):
        return [name for index, one in enumerate(value) for name in unknown_fields(one, f"{path}[{index}]")]
    return []


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


CHATS: list[dict[str, Any]] = [
    {},
    {"n": 3},
    {"logprobs": True, "top_logprobs": 2},
    {"logprobs": True},
    {"stop": ["reply"]},
    {"max_tokens": 1},
    {"max_completion_tokens": 2, "seed": 1, "temperature": 0.5},
    {"tools": CHAT_TOOLS},
    {"tools": CHAT_TOOLS, "n": 2},
    {"tools": CHAT_TOOLS, "tool_choice": "none"},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "grade", "schema": SCHEMA, "strict": True}}},
]
RESPONSES: list[dict[str, Any]] = [
    {},
    {"instructions": "Be brief.", "metadata": {"row": "1"}, "user": "somebody"},
    {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
    {"max_output_tokens": 1},
    {"tools": RESPONSE_TOOLS},
    {"tools": RESPONSE_TOOLS, "tool_choice": "none"},
    {"tools": RESPONSE_TOOLS, "tool_choice": {"type": "function", "name": "find_city"}},
    {"tools": [{"type": "function", "name": "bare", "parameters": None}]},
    {"text": {"format": {"type": "json_schema", "name": "grade", "schema": SCHEMA, "strict": True}}},
    {"text": {"format": {"type": "json_object"}}, "reasoning": {"effort": "low"}},
]


@pytest.mark.parametrize("options", CHATS, ids=lambda options: ",".join(options) or "plain")
def test_chat_completions_whole_and_streamed(options: dict[str, Any], client: OpenAI) -> None:
    asked: Any = {"model": "gpt-4o", "messages": user("Which json? [[cached:1]] [[reasoning:2]]"), **options}
    whole = client.chat.completions.create(**asked)
    assert not unknown_fields(whole)
    assert whole._request_id is not None
    assert len(whole.choices) == options.get("n", 1)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert not [name for chunk in chunks for name in unknown_fields(chunk)]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    for choice in whole.choices:
        parts = [part for chunk in chunks for part in chunk.choices if part.index == choice.index]
        finishes = [part.finish_reason for part in parts]
        assert finishes == [None] * (len(parts) - 1) + [choice.finish_reason]
        said = "".join(part.delta.content or "" for part in parts)
        assert said == (choice.message.content or "")
        calls = [call for part in parts for call in part.delta.tool_calls or ()]
        made: Any = choice.message.tool_calls or []
        assert "".join(call.function.arguments for call in calls) == "".join(call.function.arguments for call in made)
        likely = [one for part in parts if part.logprobs for one in part.logprobs.content or ()]
        assert likely == ((choice.logprobs and choice.logprobs.content) or [])


@pytest.mark.parametrize("options", RESPONSES, ids=lambda options: ",".join(options) or "plain")
def test_responses_whole_and_streamed(options: dict[str, Any], client: OpenAI) -> None:
    asked: Any = {"model": "gpt-4o", "input": "Which? [[cached:1]] [[reasoning:2]]", **options}
    whole = client.responses.create(**asked)
    assert not unknown_fields(whole)
    events: list[Any] = list(client.responses.create(**asked, stream=True))
    assert not [name for event in events for name in unknown_fields(event)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    if whole.output[0].type == "function_call":
        middle = ["function_call_arguments.delta", "function_call_arguments.done"]
    else:
        middle = ["content_part.added", "output_text.delta", "output_text.done", "content_part.done"]
    expected = ["created", "in_progress", "output_item.added", *middle, "output_item.done", whole.status]
    assert list(dict.fromkeys(kinds)) == expected
    streamed = events[-1].response
    assert (streamed.usage, streamed.output_text) == (whole.usage, whole.output_text)
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == whole.output_text


def test_the_helpers_of_the_client_put_streams_together(client: OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o", messages=user("say"), tools=CHAT_TOOLS) as chat:
        completion = chat.get_final_completion()
    [call] = completion.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == json.loads(call.function.arguments)
    with client.responses.stream(model="gpt-4o", input="[[reply:one two]]") as stream:
        assert stream.get_final_response().output_text == "one two"


def test_structured_outputs_fit_the_schema(client: OpenAI) -> None:
    completion = client.chat.completions.parse(model="gpt-4o", messages=user("grade it"), response_format=Grade)
    assert isinstance(completion.choices[0].message.parsed, Grade)
    assert isinstance(client.responses.parse(model="gpt-4o", input="grade it", text_format=Grade).output_parsed, Grade)


def test_a_tool_is_called_once_and_then_answered(client: OpenAI) -> None:
    messages = user("Where?")
    first = client.chat.completions.create(model="gpt-4o", messages=messages, tools=CHAT_TOOLS).choices[0]
    [call] = first.message.tool_calls or []
    assert call.type == "function"
    assert (first.finish_reason, call.function.name) == ("tool_calls", "find_city")
    assert set(json.loads(call.function.arguments)) == {"name", "size"}
    messages += [first.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "Oslo"}]
    second = client.chat.completions.create(model="gpt-4o", messages=messages, tools=CHAT_TOOLS).choices[0]
    assert second.finish_reason == "stop"
    assert second.message.content
    asked: Any = user("Where?")
    response = client.responses.create(model="gpt-4o", input=asked, tools=RESPONSE_TOOLS)
    [item] = response.output
    assert item.type == "function_call"
    asked += [item.to_dict(), {"type": "function_call_output", "call_id": item.call_id, "output": "Oslo"}]
    assert client.responses.create(model="gpt-4o", input=asked, tools=RESPONSE_TOOLS).output_text
    with pytest.raises(openai.BadRequestError, match="not found in 'tools'"):
        client.chat.completions.create(model="gpt-4o", messages=user("[[tool:other]]"), tools=CHAT_TOOLS)


def test_markers_are_the_calls_of_several_turns(client: OpenAI) -> None:
    script = '[[tool:find_city {"name": "Oslo", "size": 3}]] [[tool:find_city]] [[reply:two cities]]'
    messages: Any = user(f"Where? {script}")
    asked: Any = user(f"Where? {script}")
    arguments = []
    for _ in range(2):
        message = client.chat.completions.create(model="gpt-4o", messages=messages, tools=CHAT_TOOLS).choices[0].message
        [call] = message.tool_calls or []
        assert call.type == "function"
        messages += [message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "found"}]
        [item] = client.responses.create(model="gpt-4o", input=asked, tools=RESPONSE_TOOLS).output
        assert item.type == "function_call"
        assert item.arguments == call.function.arguments or arguments
        asked += [item.to_dict(), {"type": "function_call_output", "call_id": item.call_id, "output": "found"}]
        arguments.append(json.loads(call.function.arguments))
    assert arguments[0] == {"name": "Oslo", "size": 3} != arguments[1]
    last = client.chat.completions.create(model="gpt-4o", messages=messages, tools=CHAT_TOOLS).choices[0].message
    assert (last.content, last.tool_calls) == ("two cities", None)
    assert client.responses.create(model="gpt-4o", input=asked, tools=RESPONSE_TOOLS).output_text == "two cities"
    with pytest.raises(openai.BadRequestError, match="are no JSON"):
        client.chat.completions.create(model="gpt-4o", messages=user("[[tool:find_city {a}]]"), tools=CHAT_TOOLS)


def test_embeddings_and_models(client: OpenAI) -> None:
    # The client asks for base64, which its own type of the reply does not have.
    lenient = OpenAI(base_url=client.base_url, api_key="any")
    tokens: list[Any] = ["text", ["one", "two"], [5, 7], [[5, 7], [8]]]
    for given, count in zip(tokens, (1, 2, 1, 2), strict=True):
        reply = client.embeddings.create(model="m", input=given, dimensions=5, encoding_format="float")
        assert not unknown_fields(reply)
        assert [len(one.embedding) for one in reply.data] == [5] * count
        packed = lenient.embeddings.create(model="m", input=given, dimensions=5)
        assert packed == reply
    for model in client.models.list():
        assert not unknown_fields(model)
        assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        client.embeddings.create(model="m", input="text", dimensions=10**9)
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("unheard-of")
    assert raised.value.code == "model_not_found"


def test_files_are_kept_listed_in_pages_and_deleted(client: OpenAI) -> None:
    # The lines of a file are any bytes, and longer than a chunk of the upload.
    content = ('{"a": "' + "é\u2028\r" * 200_000 + '"}\n').encode()
    made = [client.files.create(file=(f"{name}.jsonl", content), purpose="batch") for name in "abc"]
    other = client.files.create(
        file=("notes.txt", b""), purpose="user_data", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert other.expires_at == other.created_at + 3600
    assert not unknown_fields([*made, other])
    assert made[0].bytes == len(content)
    assert client.files.content(made[0].id).read() == content
    assert client.files.retrieve(made[0].id) == made[0]
    assert client.files.wait_for_processing(made[0].id) == made[0]
    ids = [file.id for file in client.files.list(purpose="batch", limit=2)]
    assert ids[:3] == [file.id for file in reversed(made)]
    first = client.files.list(limit=1)
    assert (first.has_more, [file.id for file in first.data]) == (True, [other.id])
    for file in [*made, other]:
        assert client.files.delete(file.id).deleted
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            gone(made[0].id)


@pytest.mark.parametrize(
    ("file", "purpose", "message"),
    [
        (("a.txt", b"{}"), "batch", "Must be .jsonl"),
        (("a.jsonl", b"{}"), "unheard-of", "Supported values are"),
        (("a.jsonl", b"{}"), None, "'purpose'"),
    ],
)
def test_wrong_uploads_are_refused(file: Any, purpose: Any, message: str, client: OpenAI) -> None:
    wrong: Any = {"anchor": "created_at", "seconds": "soon"}
    with pytest.raises(openai.BadRequestError, match="soon"):
        client.files.create(file=("a.jsonl", b"{}"), purpose="batch", expires_after=wrong)
    with pytest.raises(openai.BadRequestError, match=message):
        client.files.create(file=file, purpose=purpose)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": "two"}, "n"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": 5}, "stop"),
        ({"stop": list("abcde")}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "messages"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.schema"),
        ({"messages": []}, "messages"),
        ({"stream": True, "stream_options": "usage"}, None),
        ({"tools": [None]}, None),
    ],
)
def test_wrong_parameters_are_named(options: dict[str, Any], param: str | None, client: OpenAI) -> None:
    asked: Any = {"model": "gpt-4o", "messages": user("hello"), **options}
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**asked)
    assert (raised.value.param, raised.value.type) == (param, "invalid_request_error")
    assert raised.value.request_id


ERRORS = [
    (400, openai.BadRequestError),
    (401, openai.AuthenticationError),
    (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError),
    (409, openai.ConflictError),
    (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError),
    (500, openai.InternalServerError),
    (503, openai.InternalServerError),
]


@pytest.mark.parametrize(("status", "error"), ERRORS)
def test_errors_have_their_classes(status: int, error: type[openai.APIStatusError], client: OpenAI) -> None:
    header = {"x-mock-fault": f"status:{status}"}
    with pytest.raises(error) as raised:
        client.responses.create(model="gpt-4o", input="hello", extra_headers=header)
    assert type(raised.value) is error
    for refused in (client.files.list, client.batches.list, client.models.list):
        with pytest.raises(error):
            refused(extra_headers=header)


def test_an_account_without_credit(client: OpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        client.responses.create(model="gpt-4o", input="[[quota]]")
    assert raised.value.code == "insufficient_quota"
    assert "retry-after" not in raised.value.response.headers


def test_previous_responses_are_not_kept(client: OpenAI) -> None:
    response = client.responses.create(model="gpt-4o", input="hello")
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(model="gpt-4o", input="and?", previous_response_id=response.id)
    assert raised.value.code == "previous_response_not_found"

"""Direct calls compared with the SDK's own: the same request, and the same reply or error."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai._utils import async_maybe_transform
from openai.resources.chat import AsyncCompletions
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import BaseModel

from doteval.clients.direct import DirectCalls, is_plain
from doteval.clients.fast import chat
from doteval.clients.openai import async_openai_client
from doteval.core.metering import metering

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How much? 😀 €"}]
COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": "five", "refusal": None, "reasoning_content": "2 + 3"},
            "stop_reason": None,
        }
    ],
    "usage": {
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "total_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 1},
    },
    "kv_transfer_params": {"a": [1, {"b": 2}]},
}


def completion(**changes: Any) -> dict[str, Any]:
    return {**COMPLETION, **changes}


TOOL_CALLS = completion(
    choices=[
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "add", "arguments": "{}"}},
                    {"id": "2", "type": "custom", "custom": {"name": "free", "input": "text"}},
                ],
            },
            "logprobs": {
                "content": [{"token": "a", "logprob": -1, "bytes": [97], "top_logprobs": []}],
                "refusal": None,
            },
        }
    ]
)


@dataclass
class Server:
    """Sends the same reply to every request, and keeps the requests."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def answer(self, body: Any, status: int = 200, **headers: str) -> None:
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.status = status
        self.headers = {"content-type": "application/json", "x-request-id": "req-7"}
        self.headers |= {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            state.seen.append((self.path, headers, body))
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(state.body)))
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        state.url = f"http://127.0.0.1:{listening.server_address[1]}/v1"
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield state
        listening.shutdown()
        thread.join()


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the direct calls made."""
    paths: list[str] = []
    post = DirectCalls.post

    async def noted(self: DirectCalls, path: str, *arguments: Any) -> Any:
        paths.append(path)
        return await post(self, path, *arguments)

    monkeypatch.setattr(DirectCalls, "post", noted)
    return paths


Call = Callable[[Any], Any]


def given(server: Server, **more: Any) -> dict[str, Any]:
    return {"base_url": server.url, "api_key": "sk-secret", "max_retries": 0, **more}


def of_both(server: Server, call: Call, **settings: Any) -> tuple[Any, Any]:
    """What the SDK's client and doteval's return or raise."""

    async def outcome(client: Any) -> Any:
        try:
            return await call(client)
        except Exception as error:  # noqa: BLE001 - the errors are compared
            return error
        finally:
            await client.close()

    async def both() -> tuple[Any, Any]:
        theirs = AsyncOpenAI(**given(server, **settings))
        return await outcome(theirs), await outcome(async_openai_client(**given(server, **settings)))

    return asyncio.run(both())


def create(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(**{"model": "m", "messages": MESSAGES, **more})


def shape(value: Any) -> Any:
    """Everything that a caller sees of a reply or an error."""
    if isinstance(value, openai.APIStatusError):
        return type(value), str(value), value.status_code, value.body, value.request_id, value.response.text
    if isinstance(value, openai.APIConnectionError):
        return type(value), str(value), value.request.method, str(value.request.url), json.loads(value.request.content)
    if isinstance(value, Exception):
        return type(value), str(value)
    if isinstance(value, BaseModel):
        return type(value), value.to_dict(), value.model_dump(), value.model_extra, getattr(value, "_request_id", None)  # type: ignore[attr-defined]
    return value


REPLIES: dict[str, Any] = {
    "usual": COMPLETION,
    "tool calls": TOOL_CALLS,
    "no usage": {name: value for name, value in COMPLETION.items() if name != "usage"},
    "a field of another type": completion(created="yesterday"),
    "an unknown enum value": completion(service_tier="turbo"),
    "whole numbers as decimals": completion(created=1.0),
    # These are read by the standard library, and not by orjson.
    "half a surrogate pair": json.dumps(COMPLETION).replace("five", "\\ud83d").encode(),
    "infinity": json.dumps(completion(logprob=-math.inf)).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(COMPLETION).encode(),
    "UTF-16": json.dumps(COMPLETION).encode("utf-16"),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=list(REPLIES))
def test_replies_equal_those_of_the_sdk(reply: Any, server: Server, direct: list[str]) -> None:
    server.answer(reply)
    with metering() as meter:
        theirs, ours = of_both(server, create)
    assert shape(ours) == shape(theirs)
    assert direct == ["/chat/completions"]
    (usage,) = meter.reading()
    expected = (3, 1) if ours.usage else (0, 0)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.attempts) == (*expected, 1)


def test_replies_of_other_content_types_equal_those_of_the_sdk(server: Server, direct: list[str]) -> None:
    server.answer(gzip.compress(json.dumps(COMPLETION).encode()), content_encoding="gzip")
    theirs, ours = of_both(server, create)
    assert shape(ours) == shape(theirs)
    assert ours.choices[0].message.content == "five"
    server.answer(COMPLETION, content_type="text/plain")
    theirs, ours = of_both(server, create)
    assert shape(ours) == shape(theirs)
    assert ours.choices[0].message.content == "five"
    assert len(direct) == 2


BAD_REPLIES: list[tuple[Any, type[Exception], str]] = [
    ({"choices": None, "error": {"message": "slow down", "code": 429}}, openai.RateLimitError, "slow down"),
    (json.dumps(COMPLETION).encode()[:60], openai.InternalServerError, "of 60 bytes, with status 200, is not valid"),
    (b"<html><style>p {}</style><p>Log in</p></html>", openai.InternalServerError, "but a page: Log in"),
    ({"detail": "busy"}, openai.InternalServerError, "has no 'choices'; it has detail"),
    ([1, 2], openai.InternalServerError, "not an object"),
]


@pytest.mark.parametrize(("reply", "kind", "words"), BAD_REPLIES)
def test_bad_replies_are_errors(
    reply: Any, kind: type[Exception], words: str, server: Server, direct: list[str]
) -> None:
    server.answer(reply)

    async def ask() -> None:
        async with async_openai_client(**given(server)) as client:
            with pytest.raises(kind, match=words):
                await create(client)
            with pytest.raises(kind, match=words):
                await chat(client, model="m", messages=MESSAGES)

    asyncio.run(ask())
    assert len(direct) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
@pytest.mark.parametrize("body", [{"error": {"message": "no", "code": "c", "type": "t"}}, b"<html>no</html>"])
def test_errors_are_the_sdks(status: int, body: Any, server: Server, direct: list[str]) -> None:
    server.answer(body, status)
    theirs, ours = of_both(server, create)
    assert isinstance(ours, openai.APIStatusError)
    assert shape(ours) == shape(theirs)
    assert json.loads(ours.request.content) == json.loads(server.seen[0][2])
    assert direct == ["/chat/completions"]


def test_no_reply_is_a_connection_error(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    theirs, ours = of_both(server, create, base_url=f"http://127.0.0.1:{port}/v1")
    assert isinstance(ours, openai.APIConnectionError)
    assert shape(ours) == shape(theirs)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        base_url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        theirs, ours = of_both(server, create, base_url=base_url, timeout=0.2)
    assert isinstance(ours, openai.APITimeoutError)
    assert shape(ours) == shape(theirs)


SETTINGS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "organization and project": {"organization": "o", "project": "p"},
    "headers": {"default_headers": {"X-Mine": "1", "user-agent": "me"}},
    "query": {"default_query": {"api-version": "7"}},
    "timeout": {"timeout": 12.5},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_the_server_gets_the_same_request(settings: dict[str, Any], server: Server, direct: list[str]) -> None:
    server.answer(COMPLETION)
    of_both(server, create, **settings)
    (path, headers, body), (our_path, our_headers, our_body) = server.seen
    assert our_path == path
    assert json.loads(our_body) == json.loads(body)
    # These depend on the HTTP library.
    for name in ("connection", "accept-encoding", "content-length"):
        headers.pop(name, None)
        our_headers.pop(name, None)
    # The user agent contains the name of the client's class.
    our_headers["user-agent"] = our_headers["user-agent"].replace("Metered", "")
    assert our_headers == headers
    assert direct


BODIES: dict[str, dict[str, Any]] = {
    "tools": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
    },
    "parts": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "t"}, {"type": "image_url", "image_url": {"url": "u"}}],
            }
        ]
    },
    "figures": {"temperature": 0, "top_p": 0.5, "seed": None, "logit_bias": {"1": 2}, "stop": ["a"], "logprobs": True},
    "format": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}}},
    "metadata": {"metadata": {"a": "b"}, "prediction": {"type": "content", "content": "c"}},
}


@pytest.mark.parametrize("more", BODIES.values(), ids=list(BODIES))
def test_plain_parameters_are_sent_unchanged(more: dict[str, Any], server: Server, direct: list[str]) -> None:
    server.answer(COMPLETION)
    of_both(server, lambda client: create(client, **more))
    theirs, ours = (json.loads(body) for _, _, body in server.seen)
    assert ours == theirs == {"model": "m", "messages": MESSAGES, **more}
    assert direct
    whole = {"model": "m", "messages": MESSAGES, **more}
    assert asyncio.run(async_maybe_transform(whole, CompletionCreateParamsNonStreaming)) == whole


class Answer(BaseModel):
    number: int


async def _raw(client: Any) -> Any:
    return (await client.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)).parse()


async def _streamed(client: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(model="m", messages=MESSAGES) as response:
        return await response.parse()


SPECIAL: dict[str, Call] = {
    "headers of a call": lambda client: create(client, extra_headers={"x-mine": "1"}),
    "a query of a call": lambda client: create(client, extra_query={"q": "1"}),
    "an extra body": lambda client: create(client, extra_body={"top_k": 3}),
    "retries of the SDK": lambda client: create(client.with_options(max_retries=1)),
    "a timeout of a call": lambda client: create(client, timeout=9),
    "a parameter not given": lambda client: create(client, seed=openai.NOT_GIVEN),
    "a generator": lambda client: create(client, messages=iter(MESSAGES)),
    "no such parameter": lambda client: create(client, temprature=1),
    "a raw reply": _raw,
    "a streamed reply": _streamed,
    "a model as the format": lambda client: create(client, response_format=Answer),
    "parsed": lambda client: client.chat.completions.parse(model="m", messages=MESSAGES, response_format=Answer),
    "no messages": lambda client: client.chat.completions.create(model="m"),
    "bytes": lambda client: create(client, user=b"x"),
    "not a number": lambda client: create(client, temperature=float("nan")),
    "no model": lambda client: client.embeddings.create(input=["a"]),
}


@pytest.mark.parametrize("call", SPECIAL.values(), ids=list(SPECIAL))
def test_calls_that_are_not_plain_are_made_by_the_sdk(call: Call, server: Server, direct: list[str]) -> None:
    answer = {**COMPLETION["choices"][0], "message": {"role": "assistant", "content": '{"number": 5}'}}  # type: ignore[index]
    server.answer(completion(choices=[answer]))
    theirs, ours = of_both(server, call)
    assert shape(ours) == shape(theirs)
    assert direct == []
    requests = [(path, json.loads(body), headers.get("x-mine")) for path, headers, body in server.seen]
    assert requests[: len(requests) // 2] == requests[len(requests) // 2 :]


@pytest.mark.parametrize("odd", [{"user": "lone surrogate: \ud800"}, {"seed": 1 << 70}])
def test_values_that_orjson_refuses_are_sent_by_the_sdk(odd: dict[str, Any], server: Server) -> None:
    server.answer(COMPLETION)
    theirs, ours = of_both(server, lambda client: create(client, **odd))
    assert shape(ours) == shape(theirs)


def test_posts_cast_to_object_are_direct(server: Server, direct: list[str]) -> None:
    server.answer(COMPLETION)
    _, ours = of_both(server, lambda client: client.post("/chat/completions", cast_to=object, body={"model": "m"}))
    assert ours == COMPLETION
    assert direct == ["/chat/completions"]

    async def fast() -> Any:
        async with async_openai_client(**given(server)) as client:
            return await chat(client, model="m", messages=MESSAGES)

    assert asyncio.run(fast()) == COMPLETION
    assert len(direct) == 2


def test_changed_settings_of_a_client_apply_to_later_calls(server: Server, direct: list[str]) -> None:
    server.answer(COMPLETION)

    async def change() -> None:
        async with async_openai_client(**given(server)) as client:
            await create(client)
            client.api_key = "sk-new"
            await create(client)
            client.base_url = f"{server.url}/other"
            await create(client)
            client.timeout = 7
            await create(client)
            await create(client.with_options(timeout=8, default_headers={"x-mine": "2"}))

    asyncio.run(change())
    seen = [(path, headers["authorization"], headers["x-stainless-read-timeout"]) for path, headers, _ in server.seen]
    path, other = "/v1/chat/completions", "/v1/other/chat/completions"
    first = seen[0][2]
    assert seen == [
        (path, "Bearer sk-secret", first),
        (path, "Bearer sk-new", first),
        (other, "Bearer sk-new", first),
        (other, "Bearer sk-new", "7"),
        (other, "Bearer sk-new", "8"),
    ]
    assert server.seen[-1][1]["x-mine"] == "2"
    assert len(direct) == 5


def test_a_patched_create_is_called(server: Server, direct: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    server.answer(COMPLETION)
    traced = []
    original = AsyncCompletions.create

    async def tracing(self: Any, **parameters: Any) -> Any:
        traced.append(parameters["model"])
        return await original(self, **parameters)

    monkeypatch.setattr(AsyncCompletions, "create", tracing)
    _, ours = of_both(server, create)
    assert traced == ["m", "m"]
    assert ours.choices[0].message.content == "five"


def test_calls_are_made_by_the_sdk_with_a_proxy_or_its_debug_log(
    server: Server, direct: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer(COMPLETION)
    with caplog.at_level(logging.DEBUG, "openai"):
        of_both(server, create)
    assert caplog.text.count("Sending HTTP Request") == 2
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    theirs, ours = of_both(server, create, base_url="http://model.invalid/v1", timeout=11)
    assert shape(ours) == shape(theirs)
    assert [path for path, _, _ in server.seen[2:]] == ["http://model.invalid/v1/chat/completions"] * 2
    assert direct == []


@pytest.mark.parametrize("value", [object(), {1: 2}, (1,), b"", [openai.omit], {"a": [{"b": {1}}]}, Answer(number=1)])
def test_values_that_are_not_plain_json(value: Any) -> None:
    assert not is_plain(value)

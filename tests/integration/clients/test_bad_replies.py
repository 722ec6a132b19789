"""Replies with status 200 that are failures, and replies that only a lenient parser reads, of every kind of client."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.clients.shared_state import close_shared, shared_limiter
from doteval.core.metering import metering
from doteval.core.results import Usage
from tests.support.client_calls import message, only

pytestmark = pytest.mark.usefixtures("forget_limits")

USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
CHOICE = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE], "usage": USAGE}


class Answers:
    """Answers each request with the next of these bodies, and then with the last one again."""

    def __init__(self, *bodies: Any, content_type: str = "application/json", encoding: str = "identity") -> None:
        self.bodies = [body if isinstance(body, bytes) else json.dumps(body).encode() for body in bodies]
        self.headers = {"content-type": content_type, "content-encoding": encoding}
        self.requests = 0

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        body = self.bodies[min(self.requests, len(self.bodies) - 1)]
        self.requests += 1
        return httpx2.Response(200, headers=self.headers, stream=_Body(body), request=request)

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        return self(request)


class _Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that has no length, in pieces that split its events."""

    def __init__(self, content: bytes) -> None:
        self._pieces = [content[at : at + 50] for at in range(0, len(content), 50)]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield piece


KINDS = ["sync", "async", "instrumented", "instrumented async"]


def call(kind: str, answers: Answers, api: str = "chat", *, retries: int = 0, **more: Any) -> tuple[Any, Usage]:
    """The reply, or the events of a stream, and the usage. Raises what the client raises."""
    settings: dict[str, Any] = {"api_key": "any", "base_url": "http://localhost/v1", "max_retries": retries}
    given = {"model": "m", **more} if api == "responses" else {"model": "m", "messages": message("hello"), **more}
    if api == "responses":
        given["input"] = "hello"

    def resource(client: Any) -> Any:
        return client.responses if api == "responses" else client.chat.completions

    async def run_async() -> Any:
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(answers.answer)) as http_client:
            if kind == "async":
                client: Any = async_openai_client(http_client=http_client, **settings)
            else:
                client = instrument(AsyncOpenAI(http_client=http_client, **settings))
            reply = await resource(client).create(**given)
            return [event async for event in reply] if more.get("stream") else reply

    def run() -> Any:
        if kind.endswith("async"):
            return asyncio.run(run_async())
        with httpx2.Client(transport=httpx2.MockTransport(answers)) as http_client:
            if kind == "sync":
                client: Any = openai_client(http_client=http_client, **settings)
            else:
                client = instrument(OpenAI(http_client=http_client, **settings))
            reply = resource(client).create(**given)
            return list(reply) if more.get("stream") else reply

    with metering() as meter:
        reply = run()
    return reply, only(meter)


def tokens(usage: Usage) -> tuple[int, int, int]:
    return usage.prompt_tokens, usage.completion_tokens, usage.attempts


LENIENT = {
    "half a surrogate pair": json.dumps(CHAT).replace('"ok"', '"\\ud83d"').encode(),
    "infinity": json.dumps({**CHAT, "logprob": -math.inf}).encode(),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(CHAT).encode(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_usage_counts_in_every_reply_that_the_sdk_reads(kind: str) -> None:
    for body in LENIENT.values():
        reply, usage = call(kind, Answers(body))
        assert reply.usage.total_tokens == 7
        assert tokens(usage) == (5, 2, 1)
    reply, usage = call(kind, Answers(CHAT, content_type="text/plain"))
    assert (reply.choices[0].message.content, tokens(usage)) == ("ok", (5, 2, 1))


@pytest.mark.parametrize(
    ("reported", "counted"),
    [
        ({"prompt_tokens": "5", "completion_tokens": 2.0, "total_tokens": None}, (5, 2)),
        ({"input_tokens": 7.0, "output_tokens": "3.0"}, (7, 3)),
        ({"prompt_tokens": "many", "completion_tokens": True}, (0, 0)),
        ({"prompt_tokens": math.nan, "completion_tokens": "Infinity"}, (0, 0)),
    ],
)
def test_usage_counts_as_a_decimal_and_as_a_text(reported: dict[str, Any], counted: tuple[int, int]) -> None:
    _, usage = call("sync", Answers({**CHAT, "usage": reported}))
    assert (usage.prompt_tokens, usage.completion_tokens) == counted


def chunk(content: str = "", finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    value = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **more}
    return b"data: " + json.dumps(value).encode()


def stream(*events: bytes, end: bytes = b"\n\n") -> bytes:
    return b"".join(event + end for event in events)


DONE = b"data: [DONE]"
GOOD_STREAMS = {
    "lenient JSON": stream(chunk("o"), chunk("k\ud83d", "stop", usage=USAGE, logprob=-math.inf), DONE),
    "carriage returns": stream(chunk("o"), chunk("k", "stop", usage=USAGE), DONE, end=b"\r\r"),
    "two lines of data": stream(
        chunk("ok", "stop"), chunk(usage=USAGE).replace(b', "model"', b',\ndata: "model"'), DONE
    ),
    "no [DONE]": stream(chunk("ok"), chunk("", "stop", usage=USAGE)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_usage_counts_in_every_stream_that_the_sdk_reads(kind: str) -> None:
    for content_type in ("text/event-stream", "text/plain", ""):
        for name, body in GOOD_STREAMS.items():
            events, usage = call(kind, Answers(body, content_type=content_type), stream=True)
            text = "".join(event.choices[0].delta.content for event in events)
            assert text.rstrip("\ud83d") == "ok", name
            assert tokens(usage) == (5, 2, 1), name


ERROR_429 = {"message": "slow down", "code": 429}
BAD = {
    "an error": ({"id": None, "choices": None, "error": ERROR_429}, 429, "slow down"),
    "an error as a text": ({"error": "no server", "error_type": "overloaded"}, 503, "no server"),
    "an error of a choice": ({**CHAT, "choices": [{**CHOICE, "error": {"message": "oh", "code": 504}}]}, 504, "oh"),
    "an error object": ({"object": "error", "message": "too long", "type": "BadRequestError"}, 400, "too long"),
    "cut": (json.dumps(CHAT).encode()[:60], 502, "not valid JSON: Unterminated string"),
    "not UTF-8": (json.dumps(CHAT).encode().replace(b'"ok"', b'"\xe9"'), 502, "not valid JSON: 'utf-8' codec"),
    "a page": (b"<html><head><script>x</script></head><b>Log\n in</b></html>", 502, "but a page: Log in"),
    "empty": (b"", 502, "the reply is empty"),
    "something else": ({"detail": "busy"}, 502, "has no 'choices'; it has detail"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_reply_with_status_200_is_tried_again(kind: str) -> None:
    for name, (body, status, words) in BAD.items():
        answers = Answers(body, CHAT)
        if status != 400:
            reply, usage = call(kind, answers, retries=1)
            assert (reply.choices[0].message.content, usage.attempts, answers.requests) == ("ok", 2, 2), name
        with pytest.raises(openai.APIStatusError, match=words) as raised:
            call(kind, Answers(body))
        assert raised.value.status_code == status, name


@pytest.mark.parametrize("kind", KINDS)
def test_a_garbled_compressed_reply_is_tried_again(kind: str) -> None:
    good = gzip.compress(json.dumps(CHAT).encode())
    answers = Answers(good[:20] + b"garbled" + good[27:], good, encoding="gzip")
    reply, usage = call(kind, answers, retries=1)
    assert (reply.choices[0].message.content, tokens(usage)) == ("ok", (5, 2, 2))


def test_good_replies_with_empty_errors_stay_as_they_are() -> None:
    for error in (None, {}, "", {"code": None, "message": None}):
        reply, _ = call("sync", Answers({**CHAT, "error": error}))
        assert reply.choices[0].message.content == "ok"
    reply, _ = call("sync", Answers({**CHAT, "choices": []}))
    assert reply.choices == []


FAILED = {
    "type": "response.failed",
    "response": {"status": "failed", "error": {"code": "server_error", "message": "oh"}},
}
BEGUN = b'data: {"type": "response.created", "response": {"status": "in_progress", "error": null}}'
BAD_STREAMS = {
    "an error event": (
        "chat",
        stream(chunk("o"), b'data: {"error": {"message": "boom", "code": 500}}', DONE),
        500,
        "boom",
    ),
    "a rejection": ("chat", stream(b'data: {"error": {"message": "slow", "type": "rate_limit_error"}}'), 429, "slow"),
    "a named event": ("chat", stream(b'event: error\ndata: {"message": "no", "code": "overloaded"}'), 503, "no"),
    "cut": ("chat", stream(chunk("o"), chunk("k")), 502, "the stream of 2 events was cut"),
    "nothing": ("chat", b"", 502, "the stream of 0 events was cut"),
    "no JSON": ("chat", stream(chunk("o"), b"data: upstream connect error"), 502, "event 2 of the stream is not valid"),
    "failed": ("responses", stream(BEGUN, b"data: " + json.dumps(FAILED).encode()), 500, "oh"),
    "cut response": ("responses", stream(BEGUN), 502, "it has no event that completes it"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_stream_raises_the_error_that_it_is(kind: str) -> None:
    for name, (api, body, status, words) in BAD_STREAMS.items():
        with pytest.raises(openai.APIStatusError, match=words) as raised:
            call(kind, Answers(body, content_type="text/event-stream"), api, stream=True)
        assert raised.value.status_code == status, name
    # A caller that asks for a stream and gets a whole reply, or an error, would read nothing.
    for body, words in ((CHAT, "and the reply is not one"), ({"error": ERROR_429}, "slow down"), (b"{", "not valid")):
        with pytest.raises(openai.APIStatusError, match=words):
            call(kind, Answers(body), stream=True)
    answers = Answers({"error": ERROR_429}, CHAT)
    with pytest.raises(openai.InternalServerError, match="not one"):
        call(kind, answers, stream=True, retries=1)
    assert answers.requests == 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ({"error": ERROR_429}, "application/json"),
        (
            stream(chunk("o"), b'data: {"error": {"message": "slow", "code": "rate_limit_exceeded"}}'),
            "text/event-stream",
        ),
    ],
)
def test_a_rejection_with_status_200_teaches_the_rate_limiter(body: Any, content_type: str) -> None:
    close_shared()
    try:
        streamed = {"stream": True} if content_type == "text/event-stream" else {}
        with pytest.raises(openai.RateLimitError):
            call("sync", Answers(body, content_type=content_type), **streamed)
        (target,) = shared_limiter()._targets.values()
        assert target.limited
    finally:
        close_shared()


NO_MONEY = {"message": "You exceeded your current quota", "type": "insufficient_quota", "code": "insufficient_quota"}
QUOTA = {"error": NO_MONEY}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_quota_that_is_used_up_is_not_tried_again(streamed: bool) -> None:
    answers = Answers(QUOTA)
    with pytest.raises(openai.RateLimitError, match="current quota") as raised:
        call("sync", answers, retries=2, **({"stream": True} if streamed else {}))
    assert (raised.value.code, answers.requests) == ("insufficient_quota", 1)
    answers = Answers(stream(chunk("o"), b"data: " + json.dumps(QUOTA).encode()), content_type="text/event-stream")
    with pytest.raises(openai.RateLimitError) as raised:
        call("sync", answers, retries=2, stream=True)
    assert (raised.value.code, raised.value.response.headers["x-should-retry"]) == ("insufficient_quota", "false")

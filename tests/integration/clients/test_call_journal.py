"""The journal step of the clients, against the mock server and a real store: what is stored, and what is replayed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import openai
import pytest
from openai import OpenAI

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.core.call_bodies import CallBody, pack
from doteval.core.call_journal import (
    CallSource,
    FinishedCall,
    JournalMode,
    RecordedCall,
    RowCalls,
    UnrecordedCallError,
)
from doteval.core.metering import Meter, metering
from doteval.core.rescoring import MissingCalls, Rescoring
from doteval.core.results import Usage
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import RICH, ask, message, settings

pytestmark = pytest.mark.usefixtures("forget_limits")

Make = Callable[..., Any]


class Recording:
    """Takes the calls of one execution of a row after another, and replays those of the one before."""

    def __init__(self, mode: JournalMode = JournalMode.FULL) -> None:
        self.mode = mode
        self.put: list[FinishedCall] = []
        self.execution = 0

    @contextmanager
    def row(self) -> Iterator[RowCalls]:
        """Run a row. Its calls are in `put` afterwards."""
        recorded = [_recorded(call, self.execution) for call in self.put if call.digest and call.status == 200]
        self.execution += 1
        self.put = []
        calls = RowCalls(self.mode, self.execution, b"key", self._put, recorded)
        with metering(Meter(calls=calls)):
            yield calls
        self.put += calls.close(has_result=True)

    def _put(self, calls: Any) -> Future[None]:
        self.put += calls
        stored: Future[None] = Future()
        stored.set_result(None)
        return stored


def _recorded(call: FinishedCall, execution: int) -> RecordedCall:
    body = CallBody(call.endpoint, call.content_type, call.error, call.request, call.reply)
    return RecordedCall(call.digest, execution, call.position, call.status, pack(body))


@pytest.fixture
def sync_client(mock_openai: MockOpenAI) -> Any:
    return openai_client(**settings(mock_openai))


def converse(client: Any) -> list[Any]:
    """A conversation that uses what the SDK can do. Returns what the row has seen."""
    whole = ask(client, RICH)
    streamed = [chunk.choices[0].delta.content for chunk in ask(client, "a stream", stream=True) if chunk.choices]
    tool = client.chat.completions.create(
        model="m",
        messages=message("[[tool:look]] now"),
        tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}],
    )
    vectors = client.embeddings.create(model="e", input=["a", "b"])
    response = client.responses.create(model="r", input="hello")
    again = ask(client, RICH)
    return [
        whole.choices[0].message.content,
        streamed,
        tool.choices[0].message.tool_calls[0].function.name,
        len(vectors.data[0].embedding),
        response.output_text,
        again.choices[0].message.content,
    ]


@pytest.mark.parametrize("instrumented", [False, True])
def test_a_row_that_runs_again_sees_the_same_and_sends_nothing(mock_openai: MockOpenAI, instrumented: bool) -> None:
    given = settings(mock_openai)
    client: Any = instrument(OpenAI(**given)) if instrumented else openai_client(**given)
    recording = Recording()
    with recording.row():
        first = converse(client)
    sent = mock_openai.stats()["requests"]
    assert [call.source for call in recording.put] == [CallSource.LIVE] * 6
    assert [call.position for call in recording.put] == list(range(6))
    assert [call.endpoint.rpartition("/")[2] for call in recording.put] == [
        *["completions"] * 3,
        *("embeddings", "responses", "completions"),
    ]
    assert recording.put[0].usage is not None
    assert (recording.put[0].usage.cached_tokens, recording.put[0].usage.completion_tokens) == (2, 8)
    with recording.row() as calls:
        assert converse(client) == first
    assert [call.replayed for call in recording.put] == [(1, position) for position in range(6)]
    assert not calls.differs
    assert mock_openai.stats()["requests"] == sent


def test_parallel_calls_of_an_async_row_are_replayed(mock_openai: MockOpenAI) -> None:
    client = async_openai_client(**settings(mock_openai))

    async def converse() -> list[str]:
        prompts = ["one", "two", "same", "same"]
        replies = await asyncio.gather(*(ask(client, prompt, temperature=None) for prompt in prompts))
        stream = await ask(client, "three", stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        return [*(reply.choices[0].message.content for reply in replies), text]

    recording = Recording()
    with recording.row():
        first = asyncio.run(converse())
    sent = mock_openai.stats()["requests"]
    assert sent == len(recording.put) == 5
    with recording.row():
        assert asyncio.run(converse()) == first
    assert mock_openai.stats()["requests"] == sent
    assert {call.source for call in recording.put} == {CallSource.REPLAY}


def test_failed_calls_and_half_read_streams_are_noted_and_not_replayed(
    mock_openai: MockOpenAI, sync_client: Any
) -> None:
    recording = Recording()

    def row() -> None:
        with pytest.raises(openai.BadRequestError):
            ask(sync_client, "[[status:400x1]] fails once")
        stream = ask(sync_client, "left unread", stream=True)
        next(iter(stream))
        stream.close()
        ask(sync_client, "good")

    with recording.row():
        row()
    failed, unread, good = sorted(recording.put, key=lambda call: call.position)
    assert (failed.status, unread.status, good.status) == (400, 200, 200)
    assert b"error" in failed.reply
    assert unread.error == "the row did not read the stream to its end"
    sent = mock_openai.stats()["requests"]
    with recording.row() as calls:
        ask(sync_client, "[[status:400x1]] fails once")
        ask(sync_client, "good")
    assert mock_openai.stats()["requests"] == sent + 1
    assert [call.source for call in recording.put] == [CallSource.LIVE, CallSource.REPLAY]
    assert calls.differs is False


def test_a_row_that_asks_something_else_is_noted(sync_client: Any) -> None:
    recording = Recording()
    with recording.row():
        ask(sync_client, "at 10:15")
        ask(sync_client, "then")
    with recording.row() as calls:
        ask(sync_client, "at 10:16")
        ask(sync_client, "then")
    assert calls.differs
    assert [call.source for call in recording.put] == [CallSource.LIVE, CallSource.REPLAY]


def rescored(recording: Recording, missing: MissingCalls) -> RowCalls:
    """The part of a rescored row that replays what another evaluation has recorded."""
    recorded = [replace(_recorded(call, 1), foreign=True) for call in recording.put]
    return RowCalls(JournalMode.FULL, 2, b"key", recording._put, recorded, Rescoring("first", ("u1",), missing))


def test_a_rescored_row_replays_whatever_server_it_asks_now(mock_openai: MockOpenAI, sync_client: Any) -> None:
    recording = Recording()
    with recording.row():
        then = [ask(sync_client, prompt).choices[0].message.content for prompt in ("one", "two")]
    elsewhere = openai_client(base_url="http://127.0.0.1:9/v1", api_key="another", max_retries=0)
    calls = rescored(recording, MissingCalls.FAIL)
    with metering(Meter(calls=calls)):
        assert [ask(elsewhere, prompt).choices[0].message.content for prompt in ("one", "two")] == then
    # The calls stay where they are.
    assert calls.close(has_result=True) == ()
    assert not calls.differs


def test_a_rescored_row_sends_nothing_that_is_not_recorded(mock_openai: MockOpenAI, sync_client: Any) -> None:
    recording = Recording()
    with recording.row():
        ask(sync_client, "one")
    sent = mock_openai.stats()["requests"]
    calls = rescored(recording, MissingCalls.FAIL)
    with metering(Meter(calls=calls)):
        # Neither the SDK nor the row takes it for an error of the request.
        with pytest.raises(UnrecordedCallError) as raised, contextlib.suppress(Exception):
            ask(sync_client, "another")
        with contextlib.suppress(UnrecordedCallError):
            ask(sync_client, "a third")
    assert mock_openai.stats()["requests"] == sent
    assert calls.refused is raised.value
    assert "call 1 of the row (/chat/completions" in str(raised.value)
    assert '+       "content": "another"' in raised.value.difference
    with metering(Meter(calls=rescored(recording, MissingCalls.LIVE))):
        ask(sync_client, "another")
    assert mock_openai.stats()["requests"] == sent + 1


def test_usage_mode_keeps_no_bodies(sync_client: Any) -> None:
    recording = Recording(JournalMode.USAGE)
    with recording.row():
        ask(sync_client, "the prompt")
    (call,) = recording.put
    assert (call.request, call.reply, call.digest, call.endpoint) == (b"", b"", b"", "")
    assert isinstance(call.usage, Usage)


def test_earlier_calls_are_stored_before_the_next_request_is_sent(mock_openai: MockOpenAI, sync_client: Any) -> None:
    sent_when_stored: list[int] = []

    def put(calls: Any) -> Future[None]:
        class StoredWhenAsked(Future[None]):
            def result(self, timeout: float | None = None) -> None:
                assert timeout is not None
                sent_when_stored.append(mock_openai.stats()["requests"])

        return StoredWhenAsked()

    with metering(Meter(calls=RowCalls(JournalMode.FULL, 1, b"key", put))):
        for prompt in "abc":
            ask(sync_client, prompt)
    assert sent_when_stored == [1, 2]


SECRETS = ("sk-planted-in-header", "planted-in-query", "planted-password", "planted cookie/value")


def test_secrets_of_a_request_are_in_no_byte_of_what_is_stored(mock_openai: MockOpenAI) -> None:
    header, query, password, cookie = SECRETS
    client = openai_client(
        base_url=mock_openai.base_url.replace("://", f"://me:{password}@"),
        api_key=header,
        default_headers={"x-gateway-token": query, "cookie": f"session={cookie}"},
        default_query={"api_key": query},
        max_retries=0,
    )
    recording = Recording()
    with recording.row():
        # The server's reply and its error quote what they were asked.
        for prompt in (f"[[reply:{' '.join(SECRETS)}]]", f"[[status:400]] {json.dumps(SECRETS)}"):
            with contextlib.suppress(openai.BadRequestError):
                ask(client, prompt)
        unreachable = client.with_options(base_url=f"http://me:{password}@127.0.0.1:9/{header}/v1")
        with pytest.raises(openai.APIConnectionError):
            ask(unreachable, "hello")
    assert [call.status for call in recording.put] == [200, 400, 0]
    everything = repr(
        [(call, pack(CallBody(call.endpoint, "", call.error, call.request, call.reply))) for call in recording.put]
    ).encode()
    everything += b"".join(call.request + call.reply for call in recording.put)
    for secret in SECRETS:
        assert secret.encode() not in everything
    assert b"***" in recording.put[0].reply

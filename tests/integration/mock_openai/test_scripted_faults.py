"""Faults that the mock server plays on request, as the real `openai` client sees them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from doteval.mock_openai import MockOpenAI
from tests.support.openai import mock_openai, mock_openai_process

__all__ = ["mock_openai", "mock_openai_process"]


@pytest.fixture
def client(mock_openai: MockOpenAI) -> Iterator[OpenAI]:
    with OpenAI(base_url=mock_openai.base_url, api_key="any", max_retries=0) as client:
        yield client


def ask(client: OpenAI, prompt: str, **more: Any) -> Any:
    return client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": prompt}], **more)


def stream(client: OpenAI, prompt: str, **more: Any) -> Any:
    return client.responses.create(model="gpt-4o", input=prompt, stream=True, **more)


def test_a_silent_connection_stays_open(client: OpenAI, mock_openai: MockOpenAI) -> None:
    for call in (ask, stream):
        with pytest.raises(openai.APITimeoutError):
            call(client, "[[silent]]", timeout=0.2)
    stats = mock_openai.stats()
    assert (stats["faults"], stats["replies"], stats["requests"]) == ({"silent": 2}, 0, 2)


def test_an_error_within_a_200(client: OpenAI, mock_openai: MockOpenAI) -> None:
    assert ask(client, "[[error]]").choices is None
    chunks: list[Any] = []
    with pytest.raises(openai.APIError, match="server had an error"):
        chunks.extend(ask(client, "[[error]] [[reply:one two three]]", stream=True))
    # The Responses API has an event for errors, which the client passes on.
    events = list(stream(client, "[[error]] [[reply:one two three]]"))
    assert (events[-1].type, events[-1].sequence_number) == ("error", len(events) - 1)
    assert len(events) > 1
    assert mock_openai.stats()["faults"] == {"error": 3}


def test_a_stream_that_is_cut_ends_like_a_whole_one(client: OpenAI, mock_openai: MockOpenAI) -> None:
    kinds = [event.type for event in stream(client, "[[cut]] [[reply:one two three]]")]
    assert "response.created" in kinds
    assert "response.completed" not in kinds
    chunks = list(ask(client, "[[cut]] [[reply:one two three]]", stream=True))
    assert chunks
    assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
    assert ask(client, "[[cut]] [[reply:whole]]").choices[0].message.content == "whole"
    stats = mock_openai.stats()
    assert (stats["faults"], stats["replies"]) == ({"cut": 2}, 1)


def test_the_body_comes_later_than_the_headers(client: OpenAI) -> None:
    for prompt, streamed in (("[[first-byte:1]]", False), ("[[first-byte:1]]", True), ("[[pace:0.3]] one", True)):
        begun = time.monotonic()
        with client.chat.completions.with_streaming_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": prompt}], stream=streamed
        ) as response:
            headers_after = time.monotonic() - begun
            response.read()
        assert time.monotonic() - begun - headers_after > 0.2
    with pytest.raises(openai.APITimeoutError):
        ask(client, "[[first-byte:5]]", timeout=0.2)


def test_what_was_paid_twice_is_counted(client: OpenAI, mock_openai: MockOpenAI) -> None:
    for prompt in ("one [[key:row 1]]", "one [[key:row 1]]", "two [[key:row 2]]"):
        ask(client, prompt)
    with pytest.raises(openai.InternalServerError):
        ask(client, "two [[key:row 2]] [[status:500]]")
    stats = mock_openai.stats()
    assert stats["repeated_replies"] == 1
    assert stats["keys"] == {"row 1": {"requests": 2, "replies": 2}, "row 2": {"requests": 2, "replies": 1}}
    assert stats["kinds"] == {"chat": {"requests": 4, "replies": 3}}
    assert stats["api_keys"] == {"...any": 4}


def test_faults_of_one_endpoint_leave_the_others_alone() -> None:
    with MockOpenAI(faults=("chat/status:500",)) as server, OpenAI(base_url=server.base_url, api_key="any") as client:
        with pytest.raises(openai.InternalServerError):
            ask(client.with_options(max_retries=0), "hello")
        assert client.responses.create(model="gpt-4o", input="hello").output_text
        assert client.embeddings.create(model="m", input="hello").data

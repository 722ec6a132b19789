"""Streams and the limits: a request is in flight, and others wait for it, until nobody reads its reply any more."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import openai
import pytest

from doteval.clients.openai import async_openai_client, openai_client
from doteval.clients.rate_limits.limiter import Limits, Permit, Reply
from doteval.clients.shared_state import shared_limiter
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import ask, settings

pytestmark = pytest.mark.usefixtures("forget_limits")


def in_flight(server: MockOpenAI) -> int:
    """How many requests the limits of this process take to be on their way to the server."""
    limiter = shared_limiter()
    line = limiter.line(f"{server.base_url.removesuffix('/v1')} m", Limits())
    # Whoever comes sees who has left without a word.
    permit = limiter.enter(line, "", 0.0)
    assert isinstance(permit, Permit)
    limiter.leave(permit, Reply(200))
    return line.window.in_flight


LONG = "[[reply:" + "word " * 500 + "]]"


@pytest.mark.parametrize("way", ["read", "closed", "left", "dropped half read", "dropped unread", "broken off"])
def test_a_stream_is_in_flight_until_nobody_reads_it_any_more(way: str, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, max_retries=0))
    prompt = "[[hangup]]" if way == "broken off" else LONG
    stream = ask(client, prompt, stream=True)
    assert in_flight(mock_openai) == 1
    match way:
        case "read":
            events = iter(stream)
            for event in events:
                if event.choices[0].finish_reason is None:
                    assert in_flight(mock_openai) == 1
        case "closed":
            stream.close()
        case "left":
            for _ in stream:
                break
            stream.response.close()
        case "dropped half read":
            next(iter(stream))
        case "broken off":
            with pytest.raises(openai.APIConnectionError):
                list(stream)
    if way.startswith("dropped"):
        del stream
        gc.collect()
    assert in_flight(mock_openai) == 0


@pytest.mark.parametrize("way", ["read", "closed", "cancelled", "dropped half read", "dropped unread"])
def test_an_async_stream_is_in_flight_until_nobody_reads_it_any_more(way: str, mock_openai: MockOpenAI) -> None:
    async def main() -> None:
        client = async_openai_client(**settings(mock_openai, max_retries=0))
        stream: Any = await ask(client, LONG, stream=True)
        assert in_flight(mock_openai) == 1

        async def read(events: int | None = None) -> None:
            seen = 0
            async for _ in stream:
                seen += 1
                if seen == events:
                    break

        async def read_and_wait() -> None:
            async with stream:
                await read(1)
                await asyncio.Event().wait()

        match way:
            case "read":
                await read()
            case "closed":
                await stream.close()
            case "cancelled":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(read_and_wait(), 0.1)
            case "dropped half read":
                await read(1)
        if way.startswith("dropped"):
            stream = None
            # The loop closes generators that were dropped, in its own time.
            for _ in range(10):
                gc.collect()
                await asyncio.sleep(0)
        assert in_flight(mock_openai) == 0

    asyncio.run(main())


def test_tokens_of_streams_are_known_to_the_limits(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    list(ask(client, "a b c", stream=True, stream_options={"include_usage": True}))
    stats = mock_openai.stats()
    line = shared_limiter().line(f"{mock_openai.base_url.removesuffix('/v1')} m", Limits())
    assert line.mean_tokens == stats["prompt_tokens"] + stats["completion_tokens"] > 0


def test_those_who_wait_go_on_when_a_stream_is_left(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    line = shared_limiter().line(f"{mock_openai.base_url.removesuffix('/v1')} m", Limits())
    line.window.limit = 1
    stream = ask(client, LONG, stream=True)
    asked = threading.Thread(target=ask, args=(client,))
    asked.start()
    while not line.waiting:
        time.sleep(0.01)
    assert mock_openai.stats()["requests"] == 1
    stream.close()
    asked.join(10)
    assert mock_openai.stats()["requests"] == 2

"""Streams and rate limits: a request counts as in flight until its reply has been read or abandoned."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import openai
import pytest

from doteval.clients.openai import async_openai_client, openai_client
from doteval.clients.rate_limits.limiter import Permit, RequestOutcome, UserLimits
from doteval.clients.shared_state import shared_limiter
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import ask, settings

pytestmark = pytest.mark.usefixtures("forget_limits")


def in_flight(server: MockOpenAI) -> int:
    """How many requests to the server this process counts as in flight."""
    limiter = shared_limiter()
    target = limiter.target(f"{server.base_url.removesuffix('/v1')} m", UserLimits())
    # A new request makes the limiter count the abandoned ones.
    permit = limiter.request_permit(target, "", 0.0)
    assert isinstance(permit, Permit)
    limiter.finish(permit, RequestOutcome(200))
    return target.window.in_flight


LONG = "[[reply:" + "word " * 500 + "]]"


@pytest.mark.parametrize("way", ["read", "closed", "half read", "dropped half read", "dropped unread", "hung up"])
def test_a_stream_is_in_flight_until_it_is_read_or_abandoned(way: str, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, max_retries=0))
    prompt = "[[hangup]]" if way == "hung up" else LONG
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
        case "half read":
            for _ in stream:
                break
            stream.response.close()
        case "dropped half read":
            next(iter(stream))
        case "hung up":
            with pytest.raises(openai.APIConnectionError):
                list(stream)
    if way.startswith("dropped"):
        del stream
        gc.collect()
    assert in_flight(mock_openai) == 0


@pytest.mark.parametrize("way", ["read", "closed", "cancelled", "dropped half read", "dropped unread"])
def test_an_async_stream_is_in_flight_until_it_is_read_or_abandoned(way: str, mock_openai: MockOpenAI) -> None:
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
            # The event loop closes dropped generators a few iterations later.
            for _ in range(10):
                gc.collect()
                await asyncio.sleep(0)
        assert in_flight(mock_openai) == 0

    asyncio.run(main())


def test_the_limiter_learns_the_tokens_of_streams(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    list(ask(client, "a b c", stream=True, stream_options={"include_usage": True}))
    stats = mock_openai.stats()
    target = shared_limiter().target(f"{mock_openai.base_url.removesuffix('/v1')} m", UserLimits())
    assert target.mean_tokens == stats["prompt_tokens"] + stats["completion_tokens"] > 0


def test_an_abandoned_stream_lets_a_waiting_request_go(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    target = shared_limiter().target(f"{mock_openai.base_url.removesuffix('/v1')} m", UserLimits())
    target.window.limit = 1
    stream = ask(client, LONG, stream=True)
    asked = threading.Thread(target=ask, args=(client,))
    asked.start()
    while not target.queued:
        time.sleep(0.01)
    assert mock_openai.stats()["requests"] == 1
    stream.close()
    asked.join(60)
    assert mock_openai.stats()["requests"] == 2

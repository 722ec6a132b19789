"""Clients with the same settings share connections and totals, on any event loop."""

from __future__ import annotations

import asyncio
import ssl
import threading
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import openai
import pytest

from doteval.clients.openai import async_openai_client, openai_client
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import chat
from tests.support.client_calls import settings_without_retries as settings

pytestmark = pytest.mark.usefixtures("forget_limits")


def test_an_http_client_of_the_caller_is_used(mock_openai: MockOpenAI) -> None:
    with httpx2.Client(headers={"x-mock-fault": "status:418"}) as http_client:
        client = openai_client(**settings(mock_openai, http_client=http_client))
        with pytest.raises(openai.APIStatusError, match="418"):
            chat(client)
        assert client.get_stats()["errors"] == 1


def test_clients_with_the_same_settings_share_connections_and_totals(mock_openai: MockOpenAI) -> None:
    same = settings(mock_openai)
    for _ in range(5):
        with openai_client(**same) as client:
            chat(client)
    assert mock_openai.stats()["connections"] <= 2  # one for the client, one for the counters
    assert client.get_stats()["requests"] == 5
    other = openai_client(**settings(mock_openai))
    assert other.get_stats()["requests"] == 0


def test_async_clients_with_the_same_settings_share_connections(mock_openai: MockOpenAI) -> None:
    same = settings(mock_openai)

    async def main() -> None:
        for _ in range(5):
            async with async_openai_client(**same) as client:
                await chat(client)

    asyncio.run(main())
    assert mock_openai.stats()["connections"] <= 2
    assert async_openai_client(**same).get_stats()["requests"] == 5


def test_an_async_client_works_on_successive_loops_and_leaves_nothing_open(mock_openai: MockOpenAI) -> None:
    client = async_openai_client(**settings(mock_openai))
    complaints: list[dict[str, Any]] = []

    async def main() -> str:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
        replies = await asyncio.gather(*(chat(client) for _ in range(5)))
        return str(replies[0].choices[0].message.content)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        assert [asyncio.run(main()) for _ in range(3)] == ["one two three"] * 3
    assert complaints == []
    assert client.get_stats()["requests"] == 15


def test_certificates_are_read_once_when_a_client_is_made(
    mock_openai: MockOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    load = ssl.SSLContext.load_verify_locations

    def load_and_count(*arguments: Any, **options: Any) -> None:
        read.append(arguments)
        load(*arguments, **options)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load_and_count)
    client = async_openai_client(**settings(mock_openai))
    assert len(read) == 1

    async def main() -> None:
        await chat(client)

    for _ in range(2):
        asyncio.run(main())
    assert len(read) == 1


def test_one_client_works_on_two_loops_at_once(mock_openai: MockOpenAI) -> None:
    client = async_openai_client(**settings(mock_openai))
    counts: list[int] = []

    async def main() -> None:
        for _ in range(10):
            await chat(client)
        counts.append(10)

    def serve(make_main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run(make_main())

    threads = [threading.Thread(target=serve, args=(main,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [10, 10]
    assert client.get_stats()["requests"] == 20

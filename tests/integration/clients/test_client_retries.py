"""Clients retry temporary failures for a limited time, and then raise the server's error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import openai
import pytest

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.core.metering import metering
from doteval.core.results import ErrorClass, Usage
from doteval.mock_openai import MockOpenAI
from doteval.runner.calls import CallPolicy, call, call_async
from tests.support.client_calls import ask, only, settings

pytestmark = pytest.mark.usefixtures("forget_limits")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_temporary_failures_are_retried(status: int, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    with metering() as meter:
        ask(client, f"[[status:{status}x2]] [[retry-after:0.01]] again")
    usage = only(meter)
    assert (usage.requests, usage.attempts, usage.latency.total) == (1, 3, 1)
    assert usage.prompt_tokens == mock_openai.stats()["prompt_tokens"] > 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_hang_up_is_retried_and_the_last_error_is_raised_unchanged(kind: str, mock_openai: MockOpenAI) -> None:
    def run(prompt: str, **more: Any) -> tuple[Usage, Exception | None]:
        error = None
        with metering() as meter:
            try:
                if kind == "sync":
                    ask(openai_client(**settings(mock_openai, **more)), prompt)
                else:

                    async def main() -> Any:
                        return await ask(async_openai_client(**settings(mock_openai, **more)), prompt)

                    asyncio.run(main())
            except openai.OpenAIError as raised:
                error = raised
        return only(meter), error

    usage, error = run("[[hangupx1]] once")
    assert (usage.requests, usage.attempts, error) == (1, 2, None)
    usage, error = run("[[hangup]] for ever", max_retries=1)
    assert (usage.requests, usage.attempts) == (1, 2)
    assert isinstance(error, openai.APIConnectionError)
    usage, error = run("[[status:503]] for ever", max_retries=1)
    assert isinstance(error, openai.InternalServerError)
    assert error.status_code == 503


Ask = Callable[[MockOpenAI, str, int], Awaitable[Any]]


async def ask_sync(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    return ask(openai_client(**settings(server, max_retries=max_retries)), prompt)


async def ask_direct(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    return await ask(async_openai_client(**settings(server, max_retries=max_retries)), prompt)


async def ask_streamed(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    stream = await ask(async_openai_client(**settings(server, max_retries=max_retries)), prompt, stream=True)
    return [event async for event in stream]


async def ask_instrumented(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    return await ask(instrument(openai.AsyncOpenAI(**settings(server, max_retries=max_retries))), prompt)


async def ask_sdk(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    return await ask(openai.AsyncOpenAI(**settings(server, max_retries=max_retries)), prompt)


async def ask_in_group(server: MockOpenAI, prompt: str, max_retries: int) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(ask_direct(server, prompt, max_retries))


@pytest.mark.parametrize("asking", [ask_sync, ask_direct, ask_instrumented, ask_sdk, ask_in_group])
@pytest.mark.parametrize("prompt", ["[[hangup]]", "[[status:503]] [[retry-after:0.01]]"])
# A client that repeats requests owns the retries; the row repeats what its client does not.
@pytest.mark.parametrize(("max_retries", "row_retries", "requests"), [(1, 3, 2), (0, 2, 3), (0, 0, 1)])
def test_retries_of_the_client_and_of_the_row_do_not_multiply(
    asking: Ask, prompt: str, max_retries: int, row_retries: int, requests: int, mock_openai: MockOpenAI
) -> None:
    policy = CallPolicy(retries=row_retries, delay=0.0)
    outcome = asyncio.run(call_async(lambda: asking(mock_openai, prompt, max_retries), {}, policy))
    assert outcome.error is not None
    assert outcome.error.error_class is ErrorClass.INFRASTRUCTURE
    assert mock_openai.stats()["requests"] == requests


@pytest.mark.parametrize(("prompt", "requests"), [("[[hangup]]", 3), ("[[status:503]] [[retry-after:0.01]]", 2)])
def test_a_stream_is_repeated_by_its_client_until_it_begins_and_by_the_row_when_it_breaks(
    prompt: str, requests: int, mock_openai: MockOpenAI
) -> None:
    policy = CallPolicy(retries=2, delay=0.0)
    outcome = asyncio.run(call_async(lambda: ask_streamed(mock_openai, prompt, 1), {}, policy))
    assert outcome.error is not None
    assert outcome.error.error_class is ErrorClass.INFRASTRUCTURE
    assert mock_openai.stats()["requests"] == requests


@pytest.mark.parametrize("max_retries", [1, 2, 3])
def test_a_client_retries_as_often_as_its_max_retries_says(max_retries: int, mock_openai: MockOpenAI) -> None:
    prompt = f"[[status:503]] [[retry-after:0.01]] {max_retries}"
    given = settings(mock_openai, max_retries=max_retries)
    for client in (openai_client(**given), instrument(openai.OpenAI(**given))):
        mock_openai.reset()
        with pytest.raises(openai.InternalServerError):
            ask(client, prompt)
        assert mock_openai.stats()["requests"] == 1 + max_retries


@pytest.mark.parametrize(
    ("headers", "body"),
    [({}, {"error": {"code": "insufficient_quota"}}), ({"x-should-retry": "false"}, {"error": {"message": "no"}})],
)
def test_a_request_that_no_client_may_repeat_is_not_repeated_by_the_row(headers: Any, body: Any) -> None:
    sent = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(429, headers=headers, json=body)

    http_client: Any = httpx2.Client(transport=httpx2.MockTransport(handle))
    client = openai_client(api_key="x", base_url="http://server/v1", http_client=http_client)
    outcome = call(lambda: ask(client), {}, CallPolicy(retries=3, delay=0.0))
    assert outcome.error is not None
    assert outcome.error.type == "RateLimitError"
    assert len(sent) == 1


def test_copies_of_a_client_add_their_tries_and_multiply_none(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, max_retries=2)).with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError):
        ask(client, "[[status:503]] [[retry-after:0.01]]")
    assert mock_openai.stats()["requests"] == 1 + 2 + 2


def test_retries_end_after_retry_seconds(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, retry_seconds=0.5))
    began = time.monotonic()
    with pytest.raises(openai.RateLimitError):
        ask(client, "[[status:429]] [[retry-after:30]] hello", model="impatient")
    assert time.monotonic() - began < 25
    with pytest.raises(openai.BadRequestError):
        ask(client, "[[status:400]]")
    assert mock_openai.stats()["requests"] == 2

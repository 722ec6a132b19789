"""The clients against the mock server: they record the usage that the server counted."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.clients.shared_state import close_shared
from doteval.core.client_config import ClientConfig, configure_clients
from doteval.core.metering import metering
from doteval.core.results import Usage
from doteval.mock_openai import MockOpenAI
from tests.support.client_calls import RICH, SECRET, ask, chat, message, only
from tests.support.client_calls import settings_without_retries as settings

pytestmark = pytest.mark.usefixtures("forget_limits")

TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")
Make = Callable[..., Any]


@pytest.fixture(params=["openai_client", "instrument"])
def make(request: pytest.FixtureRequest, mock_openai: MockOpenAI) -> Make:
    """Makes a client that records, in either of two ways."""

    def make_one(**more: Any) -> Any:
        if request.param == "openai_client":
            return openai_client(**settings(mock_openai, **more))
        return instrument(OpenAI(**settings(mock_openai, **more)))

    return make_one


@pytest.fixture(params=["async_openai_client", "instrument", "instrument_aiohttp"])
def make_async(request: pytest.FixtureRequest, mock_openai: MockOpenAI) -> Make:
    def make_one(**more: Any) -> Any:
        if request.param == "async_openai_client":
            return async_openai_client(**settings(mock_openai, **more))
        own = {"http_client": openai.DefaultAioHttpClient()} if request.param == "instrument_aiohttp" else {}
        return instrument(AsyncOpenAI(**settings(mock_openai, **own, **more)))

    return make_one


def tokens_of(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in TOKENS}


def tokens_sent(server: MockOpenAI) -> dict[str, int]:
    stats = server.stats()
    sent = {name: stats[name] for name in TOKENS}
    assert sent["prompt_tokens"] > 0
    return sent


def chat_streamed(client: Any) -> Any:
    return client.chat.completions.create(
        model="gpt-4o", messages=message(RICH), stream=True, stream_options={"include_usage": True}
    )


def responses(client: Any) -> Any:
    return client.responses.create(model="gpt-4o", input=RICH)


def responses_streamed(client: Any) -> Any:
    return client.responses.create(model="gpt-4o", input=RICH, stream=True)


def embeddings(client: Any) -> Any:
    return client.embeddings.create(model="gpt-4o", input=["one two", "three"])


def raw(client: Any) -> Any:
    return client.chat.completions.with_raw_response.create(model="gpt-4o", messages=message(RICH))


calls = pytest.mark.parametrize("call", [chat, chat_streamed, responses, responses_streamed, embeddings, raw])


@calls
def test_recorded_tokens_are_those_the_server_sent(call: Any, make: Make, mock_openai: MockOpenAI) -> None:
    client = make()
    with metering() as meter:
        reply = call(client)
        if isinstance(reply, openai.Stream):
            assert len(list(reply)) > 2
    usage = only(meter)
    assert tokens_of(usage) == tokens_sent(mock_openai)
    assert (usage.model, usage.requests, usage.attempts, usage.cost) == ("gpt-4o", 1, 1, None)
    assert 0 < usage.seconds < 10
    stats = client.get_stats()
    assert {name: stats[name] for name in TOKENS} == tokens_of(usage)
    assert (stats["requests"], stats["attempts"], stats["errors"]) == (1, 1, 0)
    assert {**stats["models"]["gpt-4o"], "models": stats["models"]} == stats


@calls
def test_async_clients_record_the_tokens_the_server_sent(call: Any, make_async: Make, mock_openai: MockOpenAI) -> None:
    async def main() -> tuple[Usage, dict[str, Any]]:
        async with make_async() as client:
            with metering() as meter:
                reply = await call(client)
                if isinstance(reply, openai.AsyncStream):
                    assert len([event async for event in reply]) > 2
            return only(meter), client.get_stats()

    usage, stats = asyncio.run(main())
    assert tokens_of(usage) == tokens_sent(mock_openai)
    assert (usage.model, usage.requests, usage.attempts) == ("gpt-4o", 1, 1)
    assert {name: stats[name] for name in TOKENS} == tokens_of(usage)
    assert (stats["requests"], stats["attempts"], stats["errors"]) == (1, 1, 0)


def test_recording_leaves_the_reply_unchanged(make: Make) -> None:
    client = make()
    assert chat(client).choices[0].message.content == "one two three"
    words = [chunk.choices[0].delta.content for chunk in chat_streamed(client) if chunk.choices]
    assert "".join(word for word in words if word) == "one two three"
    with client.chat.completions.with_streaming_response.create(model="gpt-4o", messages=message(RICH)) as response:
        assert response.parse().usage.completion_tokens == 8
    assert client.get_stats()["completion_tokens"] == 24


def test_a_stream_without_usage_counts_as_a_request(make: Make, mock_openai: MockOpenAI) -> None:
    client = make()
    list(client.chat.completions.create(model="gpt-4o", messages=message("hello"), stream=True))
    stats = client.get_stats()
    assert (stats["requests"], stats["attempts"], stats["errors"], stats["prompt_tokens"]) == (1, 1, 0, 0)


def test_a_half_read_stream_counts_as_a_request_without_error(make: Make) -> None:
    client = make()
    with chat_streamed(client) as stream:
        next(iter(stream))
    stats = client.get_stats()
    assert (stats["requests"], stats["errors"], stats["models"]["gpt-4o"]["attempts"]) == (1, 0, 1)


def test_a_stream_is_attributed_to_the_row_that_began_it(make: Make, mock_openai: MockOpenAI) -> None:
    client = make()
    with metering() as first:
        stream = chat_streamed(client)
    with metering() as second:
        list(stream)
    assert tokens_of(only(first)) == tokens_sent(mock_openai)
    assert second.reading() == ()


def test_usage_is_kept_by_model(make: Make, mock_openai: MockOpenAI) -> None:
    client = make()
    with metering() as meter:
        for model, times in (("small", 2), ("large", 1)):
            for _ in range(times):
                client.chat.completions.create(model=model, messages=message("a prompt of five words"))
        client.models.list()
    by_model = {usage.model: usage for usage in meter.reading()}
    assert {model: usage.requests for model, usage in by_model.items()} == {"small": 2, "large": 1, "unknown": 1}
    assert by_model["small"].prompt_tokens == 10
    stats = client.get_stats()
    for model, sent in mock_openai.stats()["models"].items():
        assert {name: stats["models"][model][name] for name in TOKENS} == {name: sent[name] for name in TOKENS}


@pytest.mark.parametrize("status", [429, 500, 503])
def test_retries_count_as_tries(status: int, make: Make, mock_openai: MockOpenAI) -> None:
    client = make(max_retries=3)
    with metering() as meter:
        client.chat.completions.create(
            model="gpt-4o", messages=message(f"[[status:{status}x2]] [[retry-after:0.01]] hello")
        )
    usage = only(meter)
    assert (usage.requests, usage.attempts) == (1, 3)
    assert tokens_of(usage) == tokens_sent(mock_openai)
    assert mock_openai.stats()["requests"] == 3
    stats = client.get_stats()
    assert (stats["requests"], stats["attempts"], stats["errors"]) == (1, 3, 2)


def test_retries_of_async_clients_count_as_tries(make_async: Make, mock_openai: MockOpenAI) -> None:
    async def main() -> tuple[Usage, dict[str, Any]]:
        async with make_async(max_retries=2) as client:
            with metering() as meter:
                await client.responses.create(model="gpt-4o", input="[[status:429x1]] [[retry-after:0.01]] hello")
            return only(meter), client.get_stats()

    usage, stats = asyncio.run(main())
    assert (usage.requests, usage.attempts, stats["errors"]) == (1, 2, 1)
    assert tokens_of(usage) == tokens_sent(mock_openai)


@pytest.mark.parametrize(
    ("marker", "error"),
    [
        ("[[status:401]]", openai.AuthenticationError),
        ("[[hangup]]", openai.APIConnectionError),
        ("[[malformed]]", openai.InternalServerError),
        ("[[delay:2]]", openai.APITimeoutError),
    ],
)
def test_errors_are_counted_and_raised(marker: str, error: type[Exception], make: Make) -> None:
    client = make(timeout=0.5)
    with metering() as meter, pytest.raises(error) as raised:
        client.chat.completions.create(model="gpt-4o", messages=message(marker))
    assert (only(meter).requests, only(meter).attempts, only(meter).prompt_tokens) == (1, 1, 0)
    assert client.get_stats()["errors"] == 1
    assert SECRET not in str(raised.value)
    assert SECRET not in repr(client)
    assert SECRET not in str(client.get_stats())


def test_a_stream_that_hangs_up_counts_as_an_error(make: Make) -> None:
    client = make()
    with pytest.raises(openai.APIConnectionError):
        list(
            client.chat.completions.create(
                model="gpt-4o", messages=message("[[hangup]] [[reply:one two three]]"), stream=True
            )
        )
    stats = client.get_stats()
    assert (stats["requests"], stats["attempts"], stats["errors"]) == (1, 1, 1)


@pytest.mark.parametrize("call", [chat, chat_streamed])
def test_overlapping_rows_record_their_own_usage(call: Any, make_async: Make, mock_openai: MockOpenAI) -> None:
    async def row(client: Any, number: int) -> tuple[int, Usage]:
        # Half of them finish in reverse order.
        prompt = f"[[delay:{0.5 if number % 2 else (40 - number) / 40}]] " + "word " * number
        with metering() as meter:
            reply = await client.chat.completions.create(
                model="gpt-4o",
                messages=message(prompt),
                **({"stream": True, "stream_options": {"include_usage": True}} if call is chat_streamed else {}),
            )
            if call is chat_streamed:
                async for _ in reply:
                    pass
        return number, only(meter)

    async def main() -> tuple[list[tuple[int, Usage]], dict[str, Any]]:
        async with make_async() as client:
            return await asyncio.gather(*(row(client, number) for number in range(40))), client.get_stats()

    rows, stats = asyncio.run(main())
    assert mock_openai.stats()["in_flight_max"] > 10
    for number, usage in rows:
        assert (usage.requests, usage.prompt_tokens) == (1, number + 1)
    assert {name: sum(getattr(usage, name) for _, usage in rows) for name in TOKENS} == tokens_sent(mock_openai)
    assert {name: stats[name] for name in TOKENS} == tokens_sent(mock_openai)


def test_rows_in_threads_record_their_own_usage(make: Make, mock_openai: MockOpenAI) -> None:
    client = make()
    recorded: dict[int, Usage] = {}

    def row(number: int) -> None:
        with metering() as meter:
            client.chat.completions.create(model="gpt-4o", messages=message("[[delay:0.05]] " + "word " * number))
        recorded[number] = only(meter)

    threads = [threading.Thread(target=row, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: usage.prompt_tokens for number, usage in recorded.items()} == {n: n + 1 for n in range(16)}
    assert {name: client.get_stats()[name] for name in TOKENS} == tokens_sent(mock_openai)


def test_a_cancelled_call_is_counted(make_async: Make) -> None:
    async def main() -> tuple[Usage, dict[str, Any]]:
        async with make_async() as client:
            with metering() as meter, pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.chat.completions.create(model="gpt-4o", messages=message("[[delay:2]]"))
            return only(meter), client.get_stats()

    usage, stats = asyncio.run(main())
    assert (usage.requests, usage.attempts, stats["errors"]) == (1, 1, 1)


def test_calls_outside_of_rows_count_in_the_totals_only(make: Make) -> None:
    client = make()
    with metering() as meter:
        pass
    chat(client)
    assert meter.reading() == ()
    assert client.get_stats()["requests"] == 1


def test_copies_of_a_client_share_its_totals(make: Make) -> None:
    client = make()
    copy = client.with_options(timeout=3.0)
    chat(copy)
    chat(client)
    assert client.get_stats()["requests"] == 2


def test_instrument_twice_counts_once(mock_openai: MockOpenAI) -> None:
    client = instrument(instrument(openai_client(**settings(mock_openai))))
    chat(client)
    assert client.get_stats()["requests"] == 1


def test_instrument_accepts_azure_clients(mock_openai: MockOpenAI) -> None:
    given: dict[str, Any] = {
        "azure_endpoint": mock_openai.base_url,
        "api_key": "any",
        "api_version": "2024-06-01",
        "max_retries": 0,
    }
    azure: Any = instrument(AzureOpenAI(**given))
    with pytest.raises(openai.NotFoundError):  # the mock server has no Azure paths
        chat(azure)
    assert azure.get_stats()["models"]["gpt-4o"]["errors"] == 1

    async def main() -> Any:
        async with instrument(AsyncAzureOpenAI(**given)) as client:
            with pytest.raises(openai.NotFoundError):
                await chat(client)
            return client

    assert asyncio.run(main()).get_stats()["errors"] == 1


RUNNING_TOTALS = (
    b'data: {"choices": [{"delta": {"content": "say \\"usage\\": 9"}}], '
    b'"usage": {"prompt_tokens": 7, "completion_tokens": 1}}\n\n'
    b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\r\n\r\n'
    b"data: [DONE]\n\n"
)


class InPieces(httpx2.SyncByteStream):
    def __init__(self, content: bytes, size: int) -> None:
        self._pieces = [content[start : start + size] for start in range(0, len(content), size)]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._pieces)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
@pytest.mark.parametrize("compressed", [False, True])
def test_running_totals_of_a_stream_are_counted_once_however_it_is_split(size: int, compressed: bool) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream", **({"content-encoding": "gzip"} if compressed else {})}
        content = gzip.compress(RUNNING_TOTALS) if compressed else RUNNING_TOTALS
        return httpx2.Response(200, headers=headers, stream=InPieces(content, size), request=request)

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http_client:
        client = openai_client(api_key="any", base_url="http://localhost/v1", http_client=http_client)
        with metering() as meter:
            list(client.chat.completions.create(model="m", messages=message("hello"), stream=True))
    assert (only(meter).prompt_tokens, only(meter).completion_tokens, only(meter).requests) == (7, 2, 1)


def test_usage_has_a_cost_where_the_model_has_a_price(tmp_path: Path, mock_openai: MockOpenAI) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('[models."m"]\nprompt = 1000000\ncompletion = 10\ncached = 500000\n')
    configure_clients(ClientConfig(prices=str(table)))
    try:
        client = openai_client(**settings(mock_openai))
        with metering() as meter:
            ask(client, "[[reply:one two]] [[cached:1]] a b")
            ask(client, "hello", model="unknown-model")
    finally:
        close_shared()
        configure_clients(ClientConfig())
    costs = {usage.model: usage.cost for usage in meter.reading()}
    # "[[reply:one", "two]]", "[[cached:1]]", "a" and "b" are five words, one of them cached.
    assert costs["m"] == pytest.approx(4 + 0.5 + 2 * 10 / 1_000_000)
    assert costs["unknown-model"] is None
    assert client.get_stats()["cost"] == pytest.approx(costs["m"])


def billed(details: dict[str, Any], **request: Any) -> Usage:
    """The usage of a call to a public endpoint that reports 1,000 tokens of a prompt and 200 of a completion."""
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200, **details}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "yes"}}
    reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    def answer(asked: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=reply, request=asked)

    with httpx2.Client(transport=httpx2.MockTransport(answer)) as http_client:
        client = openai_client(api_key="any", base_url="https://api.openai.com/v1", http_client=http_client)
        with metering() as meter:
            client.chat.completions.create(messages=message("hello"), **{"model": "gpt-5", **request})
    return only(meter)


def test_calls_to_public_endpoints_have_a_cost() -> None:
    # gpt-5 takes $1.25 for a million tokens of prompts, 0.125 of them cached, and $10 for those of completions.
    assert billed({}).cost == pytest.approx((1000 * 1.25 + 200 * 10) / 1e6)
    cached = billed({"prompt_tokens_details": {"cached_tokens": 400}})
    assert cached.cost == pytest.approx((600 * 1.25 + 400 * 0.125 + 200 * 10) / 1e6)
    # Reasoning tokens are part of the completion.
    reasoned = billed({"completion_tokens_details": {"reasoning_tokens": 150}})
    assert (reasoned.reasoning_tokens, reasoned.cost) == (150, billed({}).cost)
    assert billed({}, service_tier="flex").cost == pytest.approx((1000 * 1.25 + 200 * 10) / 2e6)


def test_calls_whose_price_is_not_known_have_tokens_only() -> None:
    heard = billed({"prompt_tokens_details": {"audio_tokens": 10}})
    unknown = billed({}, model="no-such-model")
    assert [(used.prompt_tokens, used.cost) for used in (heard, unknown)] == [(1000, None)] * 2

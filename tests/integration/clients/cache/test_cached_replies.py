"""Clients with a shared reply cache: what is stored, who gets it, and when it is too old."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from redis import Redis

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.clients.shared_state import close_shared
from doteval.core.client_config import CacheChoice, CacheMode, ClientConfig, configure_clients
from doteval.core.metering import UsageScope, metering
from doteval.core.results import Usage
from doteval.errors import UsageError
from doteval.mock_openai import MockOpenAI
from doteval.settings import Settings
from tests.support.client_calls import ask, message, only, settings

Configure = Callable[..., None]


@pytest.fixture(params=["local", "redis"])
def configure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Configure]:
    """Configures clients with a cache in a file or in Redis. Already called once, without arguments."""
    where: dict[str, Any] = {"cache_path": str(tmp_path / "cache.db")}
    if request.param == "redis":
        where = {"broker": request.getfixturevalue("redis_url"), "cache_path": None}

    def configure_there(**more: Any) -> None:
        close_shared()
        configure_clients(ClientConfig(**where, **more))

    configure_there()
    yield configure_there
    close_shared()
    configure_clients(ClientConfig())


def test_a_reply_is_requested_once(configure: Configure, mock_openai: MockOpenAI) -> None:
    given = settings(mock_openai, cache=True)
    client = openai_client(**given)
    with metering() as first:
        one = ask(client)
    with metering() as second:
        other = ask(openai_client(**given, timeout=5))
    assert one == other
    assert mock_openai.stats()["requests"] == 1
    assert (only(first).cache_hits, only(first).cache_misses, only(first).prompt_tokens) == (0, 1, 1)
    usage = only(second)
    assert (usage.requests, usage.attempts, usage.cache_hits, usage.cache_misses) == (1, 0, 1, 0)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.latency.total) == (0, 0, 0)


def test_the_key_covers_everything_that_changes_the_answer(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))
    differing: list[dict[str, Any]] = [
        {},
        {"model": "other"},
        {"max_tokens": 5},
        {"seed": 1},
        {"temperature": 1, "seed": 1},
        {"extra_body": {"top_k": 3}},
        {"messages": message("hello ")},
        {"stream": True},
    ]
    for more in differing * 2:
        reply = ask(client, **more)
        if more.get("stream"):
            list(reply)
    for sample in (0, 1, 2, 1):
        with metering() as meter:
            meter.scope = UsageScope("evaluation", 7, sample)
            ask(client)
    assert mock_openai.stats()["requests"] == len(differing) + 2


def test_clients_that_differ_in_a_header_or_a_key_share_no_reply(
    configure: Configure, mock_openai: MockOpenAI, tmp_path: Path, redis_url: str
) -> None:
    given = settings(mock_openai, cache=True)
    differing = [
        {},
        {"api_key": "sk-virtual-key"},
        {"default_headers": {"x-provider": "a"}},
        {"default_headers": {"x-provider": "b"}},
        {"default_query": {"key": "virtual"}},
        {"organization": "org"},
    ]
    for more in differing * 2:
        ask(openai_client(**{**given, **more}))
    assert mock_openai.stats()["requests"] == len(differing)
    # Sync, async and direct calls send the same headers, but for those that cannot matter.
    asyncio.run(ask_async({**given, "default_headers": {"x-provider": "b"}}))
    assert mock_openai.stats()["requests"] == len(differing)
    close_shared()
    stored = (tmp_path / "cache.db").read_bytes() if (tmp_path / "cache.db").exists() else b""
    stored += b"".join(Redis.from_url(redis_url).keys())
    assert b"virtual" not in stored


async def ask_async(given: dict[str, Any]) -> None:
    client = async_openai_client(**given)
    await ask(client)
    await ask(client, extra_headers={"user-agent": "another", "x-request-id": "7"})
    await ask(
        instrument(openai.AsyncOpenAI(**{name: value for name, value in given.items() if name != "cache"}), cache=True)
    )


def test_direct_calls_send_what_the_author_changes_on_a_client(configure: Configure, mock_openai: MockOpenAI) -> None:
    given = settings(mock_openai, cache=True)

    async def run() -> list[int]:
        client = async_openai_client(**given)
        requests = []
        for name, value in (("organization", None), ("organization", "org"), ("project", "p"), ("project", "q")):
            setattr(client, name, value)
            await ask(client)
            requests.append(mock_openai.stats()["requests"])
        await ask(async_openai_client(**given, default_headers={"host": "provider-b.internal"}))
        return [*requests, mock_openai.stats()["requests"]]

    assert asyncio.run(run()) == [1, 2, 3, 4, 5]


def test_a_header_that_is_to_be_ignored_does_not_count(configure: Configure, mock_openai: MockOpenAI) -> None:
    given = settings(mock_openai, cache=True, cache_ignores=["Authorization"])
    for token in ("token-1", "token-2"):
        ask(openai_client(**{**given, "api_key": token}))
    assert mock_openai.stats()["requests"] == 1
    with pytest.raises(UsageError, match="cache_ignores is 'authorization'"):
        openai_client(**settings(mock_openai, cache_ignores="authorization"))


def test_only_repeatable_requests_and_those_asked_for_are_cached(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))

    def requests(*calls: Callable[[], Any]) -> int:
        mock_openai.reset()
        for call in calls * 2:
            call()
        return int(mock_openai.stats()["requests"])

    always, never = ({"extra_headers": {"x-doteval-cache": value}} for value in ("always", "never"))
    assert requests(lambda: ask(client, "warm", temperature=0.7)) == 2
    assert requests(lambda: ask(client, "seeded", temperature=0.7, seed=1)) == 1
    assert requests(lambda: ask(client, "asked for", temperature=0.7, **always)) == 1
    assert requests(lambda: ask(client, "not wanted", **never)) == 2
    assert requests(lambda: client.embeddings.create(model="e", input="text")) == 1
    assert requests(lambda: client.responses.create(model="m", input="text", temperature=0)) == 1
    assert requests(lambda: client.models.list()) == 0
    every = openai_client(**settings(mock_openai, cache="always"))
    assert requests(lambda: ask(every, "every", temperature=0.7)) == 1
    none = openai_client(**settings(mock_openai))
    assert requests(lambda: ask(none, "none")) == 2
    own = instrument(openai.OpenAI(**settings(mock_openai)), cache=True)
    assert requests(lambda: ask(own, "instrumented")) == 1


def test_failures_are_not_stored(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True, max_retries=0))
    for marker, error in (
        ("[[status:500x1]]", openai.InternalServerError),
        ("[[hangupx1]]", openai.APIConnectionError),
        ("[[malformedx1]]", openai.InternalServerError),
    ):
        with pytest.raises(error):
            ask(client, marker)
        assert ask(client, marker) == ask(client, marker)
    assert mock_openai.stats()["requests"] == 6


def test_what_a_row_used_can_be_dropped(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))

    def ask_all() -> None:
        ask(client)
        list(ask(client, stream=True))
        client.embeddings.create(model="e", input="text")

    ask(client, "of another row")
    # Each row uses what the one before has stored, but for the row after the one whose replies are dropped.
    for requests in (4, 4, 7, 7):
        with metering() as meter:
            ask_all()
        assert mock_openai.stats()["requests"] == requests
        assert meter.used_cached
        if meter.reading()[0].cache_hits and requests == 4:
            meter.drop_cached()
    ask(client, "of another row")
    assert mock_openai.stats()["requests"] == 7


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_streams_are_stored_and_streamed_again(
    kind: str, api: str, configure: Configure, mock_openai: MockOpenAI
) -> None:
    prompt = "[[reply:one two three]] please"

    async def run() -> list[list[Any]]:
        client = async_openai_client(**settings(mock_openai, cache=True))
        received = []
        for _ in range(2):
            with metering() as meter:
                stream = await begin(client)
                received.append([event async for event in stream])
            usages.append(only(meter))
        return received

    def begin(client: Any) -> Any:
        if api == "responses":
            return client.responses.create(model="m", input=prompt, temperature=0, stream=True)
        return ask(client, prompt, stream=True, stream_options={"include_usage": True})

    usages: list[Usage] = []
    if kind == "async":
        one, other = asyncio.run(run())
    else:
        client = openai_client(**settings(mock_openai, cache=True))
        one, other = [], []
        for received in (one, other):
            with metering() as meter:
                received.extend(begin(client))
            usages.append(only(meter))
    assert one == other
    assert len(one) > 3
    assert mock_openai.stats()["requests"] == 1
    assert usages[0].completion_tokens == 3
    assert (usages[1].completion_tokens, usages[1].cache_hits) == (0, 1)


def test_a_half_read_stream_is_not_stored(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))
    with ask(client, stream=True) as stream:
        next(iter(stream))
    del stream
    assert len(list(ask(client, stream=True))) > 2
    assert mock_openai.stats()["requests"] == 2


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_concurrent_equal_requests_are_made_once(kind: str, configure: Configure, mock_openai: MockOpenAI) -> None:
    prompt = "[[delay:0.3]] the same"
    given = settings(mock_openai, cache=True)
    texts: list[str] = []
    if kind == "threads":
        client = openai_client(**given)

        def work() -> None:
            texts.append(ask(client, prompt).choices[0].message.content)

        threads = [threading.Thread(target=work) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    else:

        async def main() -> None:
            client = async_openai_client(**given)
            replies = await asyncio.gather(*(ask(client, prompt) for _ in range(100)))
            texts.extend(reply.choices[0].message.content for reply in replies)

        asyncio.run(main())
    assert len(set(texts)) == 1
    assert mock_openai.stats()["requests"] == 1
    stats = openai_client(**given).get_stats() if kind == "threads" else async_openai_client(**given).get_stats()
    assert (stats["cache_misses"], stats["cache_hits"]) == (1, len(texts) - 1)


def test_a_cancelled_row_passes_its_lease_on(configure: Configure, mock_openai: MockOpenAI) -> None:
    async def main() -> None:
        client = async_openai_client(**settings(mock_openai, cache=True))
        first = asyncio.create_task(ask(client, "[[delay:5x1]] slow"))
        while not mock_openai.stats()["requests"]:  # noqa: ASYNC110 - another process counts them
            await asyncio.sleep(0.01)
        second = asyncio.create_task(ask(client, "[[delay:5x1]] slow"))
        await asyncio.sleep(0)
        first.cancel()
        await second

    asyncio.run(main())
    # The first request, which nobody waits for any more, is not answered yet.
    stats = mock_openai.stats()
    assert (stats["requests"], stats["replies"]) == (2, 1)


@pytest.mark.parametrize(
    ("mode", "caching", "requests"),
    [
        (CacheMode.ON, None, 1),
        (CacheMode.ON, False, 2),
        (CacheMode.OFF, True, 2),
        (CacheMode.ASK, True, 1),
        (CacheMode.ASK, None, 2),
    ],
)
def test_the_cache_mode_and_the_client_decide(
    mode: CacheMode, caching: Any, requests: int, configure: Configure, mock_openai: MockOpenAI
) -> None:
    configure(cache=mode)
    client = openai_client(**settings(mock_openai, cache=caching))
    for _ in range(2):
        ask(client)
    assert mock_openai.stats()["requests"] == requests


@pytest.mark.parametrize(
    ("submitted", "default", "caching", "requests"),
    [
        (CacheMode.ON, CacheMode.ASK, None, 1),
        (CacheMode.ON, CacheMode.OFF, None, 1),
        (CacheMode.ON, CacheMode.OFF, False, 2),
        (CacheMode.OFF, CacheMode.ON, True, 2),
        (None, CacheMode.ON, None, 1),
    ],
)
def test_the_choice_of_the_submission_overrides_the_default(
    submitted: CacheMode | None,
    default: CacheMode,
    caching: Any,
    requests: int,
    configure: Configure,
    mock_openai: MockOpenAI,
) -> None:
    configure(cache=default)
    client = openai_client(**settings(mock_openai, cache=caching))
    for _ in range(2):
        with metering() as meter:
            meter.cache = None if submitted is None else CacheChoice(submitted)
            ask(client)
    assert mock_openai.stats()["requests"] == requests


def test_rows_of_one_client_may_differ_in_since(configure: Configure, mock_openai: MockOpenAI) -> None:
    given = settings(mock_openai)
    ask(openai_client(**given, cache=True))
    # From here on the reply is in the cache, and older than `since`.
    configure(cache=CacheMode.ON)
    fresh = CacheChoice(CacheMode.REFRESH, time.time())
    client = openai_client(**given)
    for requests in (2, 2):
        with metering() as meter:
            meter.cache = fresh
            ask(client)
        ask(client)
        assert mock_openai.stats()["requests"] == requests


def test_refreshing_requests_once_and_stores_the_reply(configure: Configure, mock_openai: MockOpenAI) -> None:
    given = settings(mock_openai)
    ask(openai_client(**given, cache=True))
    # From here on the reply is in the cache, and older than `since`.
    close_shared()
    configure(cache=CacheMode.REFRESH, refresh_since=time.time())
    client = openai_client(**given)
    for _ in range(3):
        ask(client)
    assert mock_openai.stats()["requests"] == 2
    configure()
    # The timeout gives it another connection pool, since that of the first client goes on with the closed cache.
    ask(openai_client(**given, cache=True, timeout=7))
    assert mock_openai.stats()["requests"] == 2


def test_since_is_read_from_the_clock_that_dates_replies(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("doteval.settings.clocks.now", lambda: now + 1000)
    for broker, expected in ((redis_url, now), ("redis://127.0.0.1:1/0", now + 1000), (None, now + 1000)):
        since = Settings(broker=broker, cache=CacheMode.REFRESH).client_config().refresh_since
        assert since == pytest.approx(expected, abs=30)


def test_calls_go_on_without_an_unreachable_cache(tmp_path: Path, mock_openai: MockOpenAI) -> None:
    (tmp_path / "file").write_text("")
    configure_clients(ClientConfig(cache_path=str(tmp_path / "file" / "cache.db")))
    try:
        client = openai_client(**settings(mock_openai, cache=True))
        assert ask(client).choices
        configure_clients(ClientConfig(broker="redis://127.0.0.1:1/0", cache_path=None))
        client = openai_client(**settings(mock_openai, cache=True))
        assert ask(client).choices
    finally:
        close_shared()
        configure_clients(ClientConfig())
    assert mock_openai.stats()["requests"] == 2

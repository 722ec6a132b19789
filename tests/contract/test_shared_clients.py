"""Clients that share replies and limits and try again, against the mock server."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import openai
import pytest

from doteval.metering import Meter, Place, metering
from doteval.resources.limiter import Limits, Permit, Reply
from doteval.resources.mock_openai import MockOpenAI
from doteval.resources.openai import async_openai_client, instrument, openai_client
from doteval.resources.shared import close_shared, shared_limiter
from doteval.results import Usage
from doteval.settings import Settings
from doteval.sharing import CacheChoice, CacheMode, Sharing, share

Configure = Callable[..., None]
_number = count()


@pytest.fixture(params=["local", "redis"])
def configure(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Configure]:
    """Says what clients share: within this machine, or in a Redis. Called once by itself."""
    places: dict[str, Any] = {"cache_path": str(tmp_path / "cache.db")}
    if request.param == "redis":
        places = {"broker": request.getfixturevalue("redis_url"), "cache_path": None}

    def share_there(**more: Any) -> None:
        close_shared()
        share(Sharing(**places, **more))

    share_there()
    yield share_there
    close_shared()
    share(Sharing())


def settings(server: MockOpenAI, **more: Any) -> dict[str, Any]:
    return {"base_url": server.base_url, "api_key": f"sk-{next(_number)}", **more}


def message(prompt: str) -> list[Any]:
    return [{"role": "user", "content": prompt}]


def ask(client: Any, prompt: str = "hello", **more: Any) -> Any:
    given = {"model": "m", "messages": message(prompt), "temperature": 0, **more}
    return client.chat.completions.create(**given)


def only(meter: Meter) -> Usage:
    (usage,) = meter.reading()
    return usage


def test_a_reply_is_paid_once(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))
    with metering() as first:
        one = ask(client)
    with metering() as second:
        other = ask(openai_client(**settings(mock_openai, cache=True)))
    assert one == other
    assert mock_openai.stats()["requests"] == 1
    assert (only(first).cache_hits, only(first).cache_misses, only(first).prompt_tokens) == (0, 1, 1)
    usage = only(second)
    assert (usage.requests, usage.attempts, usage.cache_hits, usage.cache_misses) == (1, 0, 1, 0)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.latency.total) == (0, 0, 0)


def test_everything_that_changes_the_answer_is_in_the_key(configure: Configure, mock_openai: MockOpenAI) -> None:
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
            meter.place = Place("evaluation", 7, sample)
            ask(client)
    assert mock_openai.stats()["requests"] == len(differing) + 2


def test_only_what_is_repeatable_or_asked_for_is_cached(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))

    def requests(*calls: Callable[[], Any]) -> int:
        mock_openai.reset()
        for call in calls * 2:
            call()
        return int(mock_openai.stats()["requests"])

    always, never = ({"extra_headers": {"x-doteval-cache": wish}} for wish in ("always", "never"))
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


def test_failures_are_not_kept(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True, max_retries=0))
    for marker, error in (
        ("[[status:500x1]]", openai.InternalServerError),
        ("[[hangupx1]]", openai.APIConnectionError),
        ("[[malformedx1]]", ValueError),
    ):
        with pytest.raises(error):
            ask(client, marker)
        assert ask(client, marker) == ask(client, marker)
    assert mock_openai.stats()["requests"] == 6


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_streams_are_kept_and_given_as_streams(
    kind: str, api: str, configure: Configure, mock_openai: MockOpenAI
) -> None:
    prompt = "[[reply:one two three]] please"

    async def run() -> list[list[Any]]:
        client = async_openai_client(**settings(mock_openai, cache=True))
        heard = []
        for _ in range(2):
            with metering() as meter:
                stream = await begin(client)
                heard.append([event async for event in stream])
            usages.append(only(meter))
        return heard

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
        for heard in (one, other):
            with metering() as meter:
                heard.extend(begin(client))
            usages.append(only(meter))
    assert one == other
    assert len(one) > 3
    assert mock_openai.stats()["requests"] == 1
    assert usages[0].completion_tokens == 3
    assert (usages[1].completion_tokens, usages[1].cache_hits) == (0, 1)


def test_a_stream_that_is_left_is_not_kept(configure: Configure, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, cache=True))
    with ask(client, stream=True) as stream:
        next(iter(stream))
    del stream
    assert len(list(ask(client, stream=True))) > 2
    assert mock_openai.stats()["requests"] == 2


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_single_flight(kind: str, configure: Configure, mock_openai: MockOpenAI) -> None:
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


def test_a_row_that_is_cancelled_hands_its_request_on(configure: Configure, mock_openai: MockOpenAI) -> None:
    async def main() -> float:
        client = async_openai_client(**settings(mock_openai, cache=True))
        first = asyncio.create_task(ask(client, "[[delay:2x1]] slow"))
        while not mock_openai.stats()["requests"]:  # noqa: ASYNC110 - another process counts them
            await asyncio.sleep(0.01)
        began = time.monotonic()
        second = asyncio.create_task(ask(client, "[[delay:2x1]] slow"))
        await asyncio.sleep(0)
        first.cancel()
        await second
        return time.monotonic() - began

    assert asyncio.run(main()) < 1.5
    assert mock_openai.stats()["requests"] == 2
    while mock_openai.stats()["replies"] < 2:
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("mode", "wish", "requests"),
    [
        (CacheMode.ON, None, 1),
        (CacheMode.ON, False, 2),
        (CacheMode.OFF, True, 2),
        (CacheMode.ASK, True, 1),
        (CacheMode.ASK, None, 2),
    ],
)
def test_the_command_decides(
    mode: CacheMode, wish: Any, requests: int, configure: Configure, mock_openai: MockOpenAI
) -> None:
    configure(cache=mode)
    client = openai_client(**settings(mock_openai, cache=wish))
    for _ in range(2):
        ask(client)
    assert mock_openai.stats()["requests"] == requests


@pytest.mark.parametrize(
    ("said", "default", "wish", "requests"),
    [
        (CacheMode.ON, CacheMode.ASK, None, 1),
        (CacheMode.ON, CacheMode.OFF, None, 1),
        (CacheMode.ON, CacheMode.OFF, False, 2),
        (CacheMode.OFF, CacheMode.ON, True, 2),
        (None, CacheMode.ON, None, 1),
    ],
)
def test_what_the_submission_of_a_row_says_counts_more(
    said: CacheMode | None,
    default: CacheMode,
    wish: Any,
    requests: int,
    configure: Configure,
    mock_openai: MockOpenAI,
) -> None:
    configure(cache=default)
    client = openai_client(**settings(mock_openai, cache=wish))
    for _ in range(2):
        with metering() as meter:
            meter.cache = None if said is None else CacheChoice(said)
            ask(client)
    assert mock_openai.stats()["requests"] == requests


def test_rows_of_one_client_may_differ_in_what_is_too_old(configure: Configure, mock_openai: MockOpenAI) -> None:
    ask(openai_client(**settings(mock_openai, cache=True)))
    # The reply is in the cache from here on, and older than what follows.
    configure(cache=CacheMode.ON)
    fresh = CacheChoice(CacheMode.REFRESH, time.time())
    client = openai_client(**settings(mock_openai))
    for requests in (2, 2):
        with metering() as meter:
            meter.cache = fresh
            ask(client)
        ask(client)
        assert mock_openai.stats()["requests"] == requests


def test_refreshing_asks_anew_once_and_keeps_that(configure: Configure, mock_openai: MockOpenAI) -> None:
    ask(openai_client(**settings(mock_openai, cache=True)))
    # The reply is in the cache from here on, and older than what follows.
    close_shared()
    configure(cache=CacheMode.REFRESH, refresh_since=time.time())
    client = openai_client(**settings(mock_openai))
    for _ in range(3):
        ask(client)
    assert mock_openai.stats()["requests"] == 2
    configure()
    ask(openai_client(**settings(mock_openai, cache=True)))
    assert mock_openai.stats()["requests"] == 2


def test_what_is_too_old_goes_by_the_clock_that_dates_replies(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    monkeypatch.setattr("doteval.settings.time.time", lambda: now + 1000)
    for broker, expected in ((redis_url, now), ("redis://127.0.0.1:1/0", now + 1000), (None, now + 1000)):
        since = Settings(broker=broker, cache=CacheMode.REFRESH).sharing().refresh_since
        assert since == pytest.approx(expected, abs=30)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_what_may_pass_is_tried_again(status: int, mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai))
    with metering() as meter:
        ask(client, f"[[status:{status}x2]] [[retry-after:0.01]] again")
    usage = only(meter)
    assert (usage.requests, usage.attempts, usage.latency.total) == (1, 3, 1)
    assert usage.prompt_tokens == mock_openai.stats()["prompt_tokens"] > 0


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_hang_up_is_tried_again_and_the_original_error_is_kept(kind: str, mock_openai: MockOpenAI) -> None:
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


def test_retries_end_in_time(mock_openai: MockOpenAI) -> None:
    client = openai_client(**settings(mock_openai, retry_seconds=0.5))
    began = time.monotonic()
    with pytest.raises(openai.RateLimitError):
        ask(client, "[[status:429]] [[retry-after:30]] hello", model="impatient")
    assert time.monotonic() - began < 5
    with pytest.raises(openai.BadRequestError):
        ask(client, "[[status:400]]")
    assert mock_openai.stats()["requests"] == 2


def test_a_cache_that_is_away_costs_no_row(tmp_path: Path, mock_openai: MockOpenAI) -> None:
    (tmp_path / "file").write_text("")
    share(Sharing(cache_path=str(tmp_path / "file" / "cache.db")))
    try:
        client = openai_client(**settings(mock_openai, cache=True))
        assert ask(client).choices
        share(Sharing(broker="redis://127.0.0.1:1/0", cache_path=None))
        client = openai_client(**settings(mock_openai, cache=True))
        assert ask(client).choices
    finally:
        close_shared()
        share(Sharing())
    assert mock_openai.stats()["requests"] == 2


def test_prices(tmp_path: Path, mock_openai: MockOpenAI) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('[models."m"]\nprompt = 1000000\ncompletion = 10\ncached = 500000\n')
    share(Sharing(prices=str(table)))
    try:
        client = openai_client(**settings(mock_openai))
        with metering() as meter:
            ask(client, "[[reply:one two]] [[cached:1]] a b")
            ask(client, "hello", model="unknown-model")
    finally:
        close_shared()
        share(Sharing())
    costs = {usage.model: usage.cost for usage in meter.reading()}
    # "[[reply:one", "two]]", "[[cached:1]]", "a" and "b" are five words, of which one was cached.
    assert costs["m"] == pytest.approx(4 + 0.5 + 2 * 10 / 1_000_000)
    assert costs["unknown-model"] is None
    assert client.get_stats()["cost"] == pytest.approx(costs["m"])


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

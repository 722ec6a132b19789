"""Rows in batch mode are parked however they call the clients: nothing is sent, and the flag tells.

No server listens: a request that was sent would end as a connection error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx2
import openai
import pytest
import tenacity
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.clients.parking import ROWS_IN_BATCH_MODE
from doteval.core.call_journal import JournalMode, RowCalls
from doteval.core.metering import Meter, current_meter, metering
from doteval.core.parking import Parking

SETTINGS = {"base_url": "http://127.0.0.1:9/v1", "api_key": "sk-of-nobody-at-all", "max_retries": 3}


def message(text: object = "hi") -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"{text}"}]}


class Marked(BaseModel):
    points: int


async def plain(client: Any) -> Any:
    return await client.chat.completions.create(**message())


async def responses(client: Any) -> Any:
    return await client.responses.create(model="m", input="x")


async def embeddings(client: Any) -> Any:
    return await client.embeddings.create(model="m", input=["x", "y"])


async def stream(client: Any) -> Any:
    return [chunk async for chunk in await client.chat.completions.create(**message(), stream=True)]


async def stream_helper(client: Any) -> Any:
    async with client.chat.completions.stream(**message()) as events:
        return [event async for event in events]


async def raw_response(client: Any) -> Any:
    return await client.chat.completions.with_raw_response.create(**message())


async def streaming_response(client: Any) -> Any:
    async with client.chat.completions.with_streaming_response.create(**message()) as response:
        return await response.read()


async def parsed(client: Any) -> Any:
    return await client.chat.completions.parse(**message(), response_format=Marked)


async def except_exception(client: Any) -> Any:
    try:
        return await plain(client)
    except Exception:  # noqa: BLE001
        return "swallowed"


async def bare_except(client: Any) -> Any:
    try:
        return await plain(client)
    except:  # noqa: E722
        return "swallowed"


async def bare_except_calls_again(client: Any) -> Any:
    try:
        return await plain(client)
    except:  # noqa: E722
        return await client.chat.completions.create(**message("fallback"))


async def finally_returns(client: Any) -> Any:
    try:
        await plain(client)
    finally:
        return 1  # noqa: B012


def five(client: Any) -> list[Any]:
    return [client.chat.completions.create(**message(number)) for number in range(5)]


async def gather(client: Any) -> Any:
    return await asyncio.gather(*five(client))


async def gather_exceptions(client: Any) -> Any:
    return await asyncio.gather(*five(client), return_exceptions=True)


async def gather_chains(client: Any) -> Any:
    async def chain(number: int) -> None:
        await client.chat.completions.create(**message(number))
        await client.chat.completions.create(**message(number + 100))

    await asyncio.gather(*map(chain, range(5)))


async def semaphore(client: Any) -> Any:
    two = asyncio.Semaphore(2)

    async def one(number: int) -> None:
        async with two:
            await client.chat.completions.create(**message(number))

    await asyncio.gather(*map(one, range(5)))


async def task_group(client: Any) -> Any:
    async with asyncio.TaskGroup() as group:
        for each in five(client):
            group.create_task(each)


async def anyio_group(client: Any) -> Any:
    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(lambda number=number: client.chat.completions.create(**message(number)))


async def as_completed(client: Any) -> Any:
    for each in asyncio.as_completed(five(client)):
        await each


async def waited(client: Any) -> Any:
    done, _ = await asyncio.wait(list(map(asyncio.ensure_future, five(client))))
    return [task.result() for task in done]


async def wait_for(client: Any) -> Any:
    return await asyncio.wait_for(plain(client), 5)


async def timeout_block(client: Any) -> Any:
    async with asyncio.timeout(5):
        return await plain(client)


async def shielded(client: Any) -> Any:
    return await asyncio.shield(plain(client))


async def forgotten_task(client: Any) -> Any:
    task = asyncio.create_task(plain(client))
    await asyncio.wait([task])
    task.exception()
    return 1


async def to_thread(_: Any) -> Any:
    with openai_client(**SETTINGS) as client:
        return await asyncio.to_thread(client.chat.completions.create, **message())


async def tenacity_default(client: Any) -> Any:
    async for attempt in tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3)):
        with attempt:
            await plain(client)


async def tenacity_all(client: Any) -> Any:
    everything = tenacity.retry_if_exception(lambda _: True)
    async for attempt in tenacity.AsyncRetrying(stop=tenacity.stop_after_attempt(3), retry=everything, reraise=True):
        with attempt:
            await plain(client)


async def suppressed(client: Any) -> Any:
    with contextlib.suppress(Exception):
        await plain(client)


async def context_manager(client: Any) -> Any:
    log = []

    @contextlib.asynccontextmanager
    async def tool() -> Any:
        try:
            yield
        finally:
            await asyncio.sleep(0)
            log.append("closed")

    try:
        async with tool():
            await plain(client)
    finally:
        assert log == ["closed"]


async def exit_calls_model(client: Any) -> Any:
    @contextlib.asynccontextmanager
    async def judge() -> Any:
        try:
            yield
        finally:
            await client.chat.completions.create(**message("at exit"))

    async with judge():
        await plain(client)


async def except_star(client: Any) -> Any:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(plain(client))
    except* Exception:  # noqa: BLE001
        pass


async def generator(client: Any) -> Any:
    async def replies() -> Any:
        for number in range(3):
            yield await client.chat.completions.create(**message(number))

    return [reply async for reply in replies()]


# How it ends, and how many calls it wants at least.
ASYNC: dict[Callable[[Any], Any], tuple[str, int]] = {
    plain: ("Parked", 1),
    responses: ("Parked", 1),
    embeddings: ("Parked", 1),
    stream: ("Parked", 1),
    stream_helper: ("Parked", 1),
    raw_response: ("Parked", 1),
    streaming_response: ("Parked", 1),
    parsed: ("Parked", 1),
    except_exception: ("Parked", 1),
    bare_except: ("returned", 1),
    bare_except_calls_again: ("Parked", 1),
    finally_returns: ("returned", 1),
    gather: ("Parked", 5),
    gather_exceptions: ("returned", 5),
    gather_chains: ("Parked", 5),
    semaphore: ("Parked", 2),
    task_group: ("BaseExceptionGroup", 5),
    anyio_group: ("BaseExceptionGroup", 5),
    as_completed: ("Parked", 5),
    waited: ("Parked", 5),
    wait_for: ("Parked", 1),
    timeout_block: ("Parked", 1),
    shielded: ("Parked", 1),
    forgotten_task: ("returned", 1),
    to_thread: ("Parked", 1),
    tenacity_default: ("Parked", 1),
    tenacity_all: ("Parked", 1),
    suppressed: ("Parked", 1),
    context_manager: ("Parked", 1),
    exit_calls_model: ("Parked", 1),
    except_star: ("BaseExceptionGroup", 1),
    generator: ("Parked", 1),
}


def sync_plain(client: Any) -> Any:
    return client.chat.completions.create(**message())


def sync_stream(client: Any) -> Any:
    return list(client.chat.completions.create(**message(), stream=True))


def sync_except(client: Any) -> Any:
    try:
        return sync_plain(client)
    except Exception:  # noqa: BLE001
        return "swallowed"


def sync_pool(client: Any) -> Any:
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        context = contextvars.copy_context
        futures = [pool.submit(context().run, lambda number=n: five_sync(client, number)) for n in range(3)]
        return [future.result() for future in futures]


def five_sync(client: Any, number: int) -> Any:
    return client.chat.completions.create(**message(number))


def sync_asyncio_run(_: Any) -> Any:
    return asyncio.run(plain(async_openai_client(**SETTINGS)))


def sync_tenacity(client: Any) -> Any:
    for attempt in tenacity.Retrying(stop=tenacity.stop_after_attempt(3)):
        with attempt:
            sync_plain(client)


SYNC: dict[Callable[[Any], Any], tuple[str, int]] = {
    sync_plain: ("Parked", 1),
    sync_stream: ("Parked", 1),
    sync_except: ("Parked", 1),
    sync_pool: ("Parked", 1),
    sync_asyncio_run: ("Parked", 1),
    sync_tenacity: ("Parked", 1),
}


@contextlib.contextmanager
def row() -> Iterator[Parking]:
    parking = Parking()
    meter = Meter(calls=RowCalls(JournalMode.FULL, 1, b"key", lambda _: concurrent.futures.Future(), parking=parking))
    meter.parks = True
    with metering(meter):
        yield parking


def ended(error: BaseException | None) -> str:
    return "returned" if error is None else type(error).__name__


def check(parking: Parking, error: BaseException | None, expected: tuple[str, int]) -> None:
    how, least = expected
    assert ended(error) == how
    assert parking.parked
    assert len(parking.wanted) >= least
    # What is asked after the flag is no wish, and nothing asks for a stream.
    assert len({(call.digest, call.nth) for call in parking.wanted}) == len(parking.wanted) <= 5
    assert not any(
        b"fallback" in call.body or b"at exit" in call.body or b"stream" in call.body for call in parking.wanted
    )


@functools.cache
def clients(kind: str, *, is_async: bool) -> Any:
    if kind == "direct":
        return async_openai_client(**SETTINGS)
    if kind == "http":
        own: Any = httpx2.AsyncClient() if is_async else httpx2.Client()
        return instrument((AsyncOpenAI if is_async else OpenAI)(http_client=own, **SETTINGS))
    return instrument((AsyncOpenAI if is_async else OpenAI)(**SETTINGS))


@pytest.mark.parametrize("function", ASYNC, ids=lambda each: each.__name__)
@pytest.mark.parametrize("kind", ["direct", "http"])
def test_async_rows_are_parked(kind: str, function: Callable[[Any], Any]) -> None:
    async def run() -> BaseException | None:
        try:
            await function(clients(kind, is_async=True))
        except BaseException as error:  # noqa: BLE001
            return error
        return None

    with row() as parking:
        error = asyncio.run(run())
    check(parking, error, ASYNC[function])


@pytest.mark.parametrize("function", SYNC, ids=lambda each: each.__name__)
@pytest.mark.parametrize("kind", ["sdk", "http"])
def test_sync_rows_are_parked(kind: str, function: Callable[[Any], Any]) -> None:
    raised: BaseException | None = None
    with row() as parking:
        try:
            function(clients(kind, is_async=False))
        except BaseException as error:  # noqa: BLE001
            raised = error
    check(parking, raised, SYNC[function])


def test_a_thread_without_the_rows_context_is_refused() -> None:
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            sync_plain(openai_client(**SETTINGS))
        except openai.BadRequestError as error:
            errors.append(error)

    with row() as parking, ROWS_IN_BATCH_MODE:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert "belongs to no row" in str(errors[0])
    assert not parking.parked


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.models.list(), "GET this path is not supported in batches"),
        (lambda client: client.moderations.create(input="x"), "POST /moderations is not supported in batches"),
        (lambda client: client.chat.completions.create(**message(), extra_query={"a": "b"}), "query parameters"),
        (lambda client: client.chat.completions.create(**message(SETTINGS["api_key"])), "holds a secret"),
    ],
)
def test_what_cannot_be_put_into_a_batch_is_refused(call: Callable[[Any], Any], said: str) -> None:
    with row() as parking, pytest.raises(openai.BadRequestError, match=said):
        call(openai_client(**SETTINGS))
    assert not parking.parked


def test_a_row_that_has_ended_asks_nothing_more() -> None:
    with row() as parking:
        current = current_meter()
        assert current is not None
        assert current.calls is not None
        current.calls.close(has_result=True)
        with pytest.raises(openai.BadRequestError, match="does not belong to a row"):
            sync_plain(openai_client(**SETTINGS))
    assert not parking.parked


def test_calls_of_fixtures_stay_live() -> None:
    with row() as parking:
        current = current_meter()
        assert current is not None
        current.parks = False
        with pytest.raises(openai.APIConnectionError):
            sync_plain(openai_client(**{**SETTINGS, "max_retries": 0}))
    assert not parking.parked


def test_equal_calls_of_a_row_differ_by_their_number() -> None:
    async def run() -> None:
        client = async_openai_client(**SETTINGS)
        await asyncio.gather(plain(client), plain(client), return_exceptions=True)

    with row() as parking:
        asyncio.run(run())
    assert [call.nth for call in parking.wanted] == [0, 1]

"""Streamed bodies: an observer sees what the caller reads, and is notified of the end once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from doteval.clients.streams import is_done, observe, observe_async

EVENTS = b'data: {"text": "data: [DONE]\\n"}\r\n\r\ndata: [DONE]\r\n\r\n'


class Response:
    """The parts of an httpx response that are used, sync and async."""

    def __init__(self, *chunks: bytes | Exception, content_type: str = "text/event-stream; charset=utf-8") -> None:
        self.headers = {"content-type": content_type}
        self.chunks = chunks
        self.is_closed = False

    def iter_bytes(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
        # httpx closes the response at its end.
        self.close()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
        await self.aclose()

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Observer:
    def __init__(self) -> None:
        self.seen = b""
        self.events: list[str] = []

    def on_chunk(self, chunk: bytes) -> None:
        self.seen += chunk

    def on_end(self) -> None:
        self.events.append("end")

    def on_error(self) -> None:
        self.events.append("error")

    def on_abandoned(self) -> None:
        self.events.append("abandoned")


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def observed(kind: str, *chunks: bytes | Exception, **more: Any) -> tuple[Response, Observer]:
    response, observer = Response(*chunks, **more), Observer()
    (observe if kind == "sync" else observe_async)(response, observer)
    return response, observer


def read(kind: str, response: Response, chunks: int | None = None) -> None:
    """Read this many chunks, or all of them, and drop the iterator."""

    async def read_async() -> None:
        iterator = response.aiter_bytes()
        missing = chunks
        while missing != 0:
            try:
                await anext(iterator)
            except StopAsyncIteration:
                return
            missing = None if missing is None else missing - 1
        await iterator.aclose()  # type: ignore[attr-defined]

    if kind == "async":
        asyncio.run(read_async())
        return
    for number, _ in enumerate(response.iter_bytes(), 1):
        if number == chunks:
            return


def close(kind: str, response: Response) -> None:
    if kind == "sync":
        response.close()
    else:
        asyncio.run(response.aclose())


def test_a_body_read_to_the_end_notifies_once(kind: str) -> None:
    response, observer = observed(kind, b"one ", b"two", content_type="application/json")
    read(kind, response)
    close(kind, response)
    assert (observer.seen, observer.events, response.is_closed) == (b"one two", ["end"], True)


@pytest.mark.parametrize("cut", range(1, len(EVENTS)))
def test_the_done_event_ends_the_body_wherever_it_is_split(cut: int, kind: str) -> None:
    response, observer = observed(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
    read(kind, response, 1)
    end = EVENTS.rindex(b"]") + 1
    assert observer.events == (["end"] if cut >= end else ["abandoned"])
    response, observer = observed(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
    read(kind, response, 2)
    assert observer.events == ["end"]
    assert observer.seen in (EVENTS, EVENTS[:cut])
    assert is_done(observer.seen)


@pytest.mark.parametrize("content", [b'data: {"text": "data: [DONE]"}\n\n', b"data: [DON", b""])
def test_done_within_text_is_not_the_last_event(content: bytes, kind: str) -> None:
    assert not is_done(content)
    response, observer = observed(kind, content, b"")
    read(kind, response, 1)
    assert observer.events == ["abandoned"]


@pytest.mark.parametrize("content", [b"data: [DONE]", b"data:[DONE]", b": hello\n\ndata: [DONE]\n\n"])
def test_the_last_event_is_recognized(content: bytes) -> None:
    assert is_done(content)


def test_a_body_that_fails_notifies_an_error(kind: str) -> None:
    response, observer = observed(kind, b"one", OSError("no more"))
    with pytest.raises(OSError, match="no more"):
        read(kind, response)
    close(kind, response)
    assert (observer.seen, observer.events) == (b"one", ["error"])


def test_a_body_closed_unread_or_half_read_is_abandoned(kind: str) -> None:
    for chunks in (0, 1):
        response, observer = observed(kind, b"one", b"two")
        if chunks:
            read(kind, response, chunks)
        close(kind, response)
        close(kind, response)
        assert observer.events == ["abandoned"]


def test_a_dropped_body_is_abandoned(kind: str) -> None:
    response, observer = observed(kind, b"one", b"two")
    del response
    gc.collect()
    assert observer.events == ["abandoned"]


def test_a_cancelled_reader_abandons_the_body() -> None:
    async def main() -> list[str]:
        response, observer = observed("async", b"one")

        has_read = asyncio.Event()

        async def read_and_wait(response: Response) -> None:
            async for _ in response.aiter_bytes():
                has_read.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(read_and_wait(response))
        await has_read.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del response, task
        for _ in range(3):
            gc.collect()
            await asyncio.sleep(0)
        return observer.events

    assert asyncio.run(main()) == ["abandoned"]


def test_two_observers_are_notified_from_the_inside_out(kind: str) -> None:
    events: list[str] = []

    class Named(Observer):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_end(self) -> None:
            events.append(f"{self.name} end")

        def on_abandoned(self) -> None:
            events.append(f"{self.name} abandoned")

    for chunks in (None, 1):
        response = Response(b"one", b"two")
        for name in ("inner", "outer"):
            (observe if kind == "sync" else observe_async)(response, Named(name))
        read(kind, response, chunks)
        close(kind, response)
    assert events[:2] == ["inner end", "outer end"]
    assert sorted(events[2:]) == ["inner abandoned", "outer abandoned"]

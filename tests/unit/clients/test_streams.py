"""Bodies that are read as they come: whoever watches one sees what the caller read, and hears its end once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from doteval.clients.streams import is_done, watch, watch_async

EVENTS = b'data: {"text": "data: [DONE]\\n"}\r\n\r\ndata: [DONE]\r\n\r\n'


class Response:
    """What is used of one of httpx, in both kinds."""

    def __init__(self, *chunks: bytes | Exception, content_type: str = "text/event-stream; charset=utf-8") -> None:
        self.headers = {"content-type": content_type}
        self.chunks = chunks
        self.is_closed = False

    def iter_bytes(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk
        # httpx closes by itself at the end.
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


class Watcher:
    def __init__(self) -> None:
        self.seen = b""
        self.heard: list[str] = []

    def feed(self, chunk: bytes) -> None:
        self.seen += chunk

    def ended(self) -> None:
        self.heard.append("ended")

    def broke(self) -> None:
        self.heard.append("broke")

    def left(self) -> None:
        self.heard.append("left")


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def watched(kind: str, *chunks: bytes | Exception, **more: Any) -> tuple[Response, Watcher]:
    response, watcher = Response(*chunks, **more), Watcher()
    (watch if kind == "sync" else watch_async)(response, watcher)
    return response, watcher


def read(kind: str, response: Response, chunks: int | None = None) -> None:
    """Read so many chunks, or all of them, and let go of the iterator."""

    async def read_async() -> None:
        iterator = response.aiter_bytes()
        left = chunks
        while left != 0:
            try:
                await anext(iterator)
            except StopAsyncIteration:
                return
            left = None if left is None else left - 1
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


def test_a_body_that_is_read_to_its_end(kind: str) -> None:
    response, watcher = watched(kind, b"one ", b"two", content_type="application/json")
    read(kind, response)
    close(kind, response)
    assert (watcher.seen, watcher.heard, response.is_closed) == (b"one two", ["ended"], True)


@pytest.mark.parametrize("cut", range(1, len(EVENTS)))
def test_events_end_with_their_last_one_wherever_they_are_cut(cut: int, kind: str) -> None:
    response, watcher = watched(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
    read(kind, response, 1)
    end = EVENTS.rindex(b"]") + 1
    assert watcher.heard == (["ended"] if cut >= end else ["left"])
    response, watcher = watched(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
    read(kind, response, 2)
    assert watcher.heard == ["ended"]
    assert watcher.seen in (EVENTS, EVENTS[:cut])
    assert is_done(watcher.seen)


@pytest.mark.parametrize("content", [b'data: {"text": "data: [DONE]"}\n\n', b"data: [DON", b""])
def test_what_is_not_the_last_event(content: bytes, kind: str) -> None:
    assert not is_done(content)
    response, watcher = watched(kind, content, b"")
    read(kind, response, 1)
    assert watcher.heard == ["left"]


@pytest.mark.parametrize("content", [b"data: [DONE]", b"data:[DONE]", b": hello\n\ndata: [DONE]\n\n"])
def test_what_is_the_last_event(content: bytes) -> None:
    assert is_done(content)


def test_a_body_that_breaks_off(kind: str) -> None:
    response, watcher = watched(kind, b"one", OSError("no more"))
    with pytest.raises(OSError, match="no more"):
        read(kind, response)
    close(kind, response)
    assert (watcher.seen, watcher.heard) == (b"one", ["broke"])


def test_a_body_that_is_closed_unread_or_half_read(kind: str) -> None:
    for chunks in (0, 1):
        response, watcher = watched(kind, b"one", b"two")
        if chunks:
            read(kind, response, chunks)
        close(kind, response)
        close(kind, response)
        assert watcher.heard == ["left"]


def test_a_body_that_is_dropped(kind: str) -> None:
    response, watcher = watched(kind, b"one", b"two")
    del response
    gc.collect()
    assert watcher.heard == ["left"]


def test_a_reader_that_is_cancelled() -> None:
    async def main() -> list[str]:
        response, watcher = watched("async", b"one")

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
        return watcher.heard

    assert asyncio.run(main()) == ["left"]


def test_two_who_watch_hear_it_from_the_inside_out(kind: str) -> None:
    heard: list[str] = []

    class Named(Watcher):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def ended(self) -> None:
            heard.append(f"{self.name} ended")

        def left(self) -> None:
            heard.append(f"{self.name} left")

    for chunks in (None, 1):
        response = Response(b"one", b"two")
        for name in ("inner", "outer"):
            (watch if kind == "sync" else watch_async)(response, Named(name))
        read(kind, response, chunks)
        close(kind, response)
    assert heard[:2] == ["inner ended", "outer ended"]
    assert sorted(heard[2:]) == ["inner left", "outer left"]

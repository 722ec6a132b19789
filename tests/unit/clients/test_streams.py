"""Streamed bodies: an observer sees what the caller reads, and is notified of the end once."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator

import pytest
from openai._streaming import SSEDecoder

from doteval.clients.streams import EventDecoder, ServerSentEvent, StreamObserver, events_in, observe, observe_async

EVENTS = b'data: {"text": "data: [DONE]\\n"}\r\n\r\ndata: [DONE]\r\n\r\n'


class Response:
    """The parts of an httpx response that are used, sync and async."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.is_closed = False

    def iter_bytes(self) -> Iterator[bytes]:
        # httpx closes the response at its end, and when the iterator is dropped.
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            self.close()

    async def aiter_bytes(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self.chunks:
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
        finally:
            await self.aclose()

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Observer(StreamObserver):
    def __init__(self) -> None:
        self.seen = b""
        self.data: list[bytes] = []
        self.events: list[str] = []

    def on_chunk(self, chunk: bytes) -> None:
        self.seen += chunk

    def on_event(self, event: ServerSentEvent) -> None:
        self.data.append(event.data)

    def on_end(self) -> None:
        self.events.append("end")

    def on_error(self) -> None:
        self.events.append("error")

    def on_abandoned(self) -> None:
        self.events.append("abandoned")


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def observed(kind: str, *chunks: bytes | Exception, events: bool = True) -> tuple[Response, Observer]:
    response, observer = Response(*chunks), Observer()
    (observe if kind == "sync" else observe_async)(response, observer, events=events)
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
    response, observer = observed(kind, b"one ", b"two", events=False)
    read(kind, response)
    close(kind, response)
    assert (observer.seen, observer.events, response.is_closed) == (b"one two", ["end"], True)


def test_the_done_event_ends_the_body_wherever_it_is_split(kind: str) -> None:
    # The empty line after the event ends with its carriage return.
    end = len(EVENTS) - 1
    for cut in range(1, len(EVENTS)):
        response, observer = observed(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
        read(kind, response, 1)
        assert observer.events == (["end"] if cut >= end else ["abandoned"])
        response, observer = observed(kind, EVENTS[:cut], EVENTS[cut:], b": nobody reads this")
        read(kind, response, 2)
        assert observer.events == ["end"]
        assert observer.data == [b'{"text": "data: [DONE]\\n"}', b"[DONE]"]


@pytest.mark.parametrize("content", [b'data: {"text": "data: [DONE]"}\n\n', b"data: [DON", b""])
def test_done_within_text_is_not_the_last_event(content: bytes, kind: str) -> None:
    response, observer = observed(kind, content, b"")
    read(kind, response, 1)
    assert observer.events == ["abandoned"]


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\n"])
def test_events_are_read_as_the_sdk_reads_them(ending: bytes) -> None:
    lines = [b": hello", b"event: error", b"data:1", b"data: 2", b"", b"id: 7", b"data:  3", b"", b"event: x", b"", b""]
    content = ending.join(lines)
    expected = [ServerSentEvent(b"error", b"1\n2"), ServerSentEvent(b"", b" 3")]
    theirs = [event for event in SSEDecoder().iter_bytes(iter([content])) if event.data]
    assert [(event.event or "", event.data) for event in theirs] == [
        (event.name.decode(), event.data.decode()) for event in expected
    ]
    for size in range(1, len(content)):
        decoder = EventDecoder()
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        assert [event for piece in pieces for event in decoder.feed(piece)] == expected
    assert events_in(b"data: without an empty line") == [ServerSentEvent(b"", b"without an empty line")]


def test_what_an_observer_raises_reaches_the_reader_and_is_an_error_for_the_others(kind: str) -> None:
    class Raises(Observer):
        def on_event(self, event: ServerSentEvent) -> None:
            if event.data == b"bad":
                raise OSError("the event is bad")

        def on_end(self) -> None:
            raise OSError("the end is bad")

    for content, why in ((b"data: bad\n\n", "event"), (b"data: bad", "event"), (b"data: good\n\n", "end")):
        response, first = observed(kind, content)
        observers = [Raises(), Observer()]
        for observer in observers:
            (observe if kind == "sync" else observe_async)(response, observer, events=True)
        with pytest.raises(OSError, match=f"the {why} is bad"):
            read(kind, response)
        close(kind, response)
        assert first.events == (["end"] if why == "end" else ["error"])
        assert observers[1].events == ["error"]


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
            (observe if kind == "sync" else observe_async)(response, Named(name), events=False)
        read(kind, response, chunks)
        close(kind, response)
    assert events[:2] == ["inner end", "outer end"]
    assert sorted(events[2:]) == ["inner abandoned", "outer abandoned"]


@pytest.mark.parametrize("character", [b"a", b":", b" ", b"\r", b"\n"])
def test_a_megabyte_in_small_pieces_is_read_in_linear_time(character: bytes) -> None:
    """If every piece were added to the line before it, this would take minutes."""
    decoder = EventDecoder()
    found = [event for _ in range(250_000) for event in decoder.feed(character * 4)]
    found += [*decoder.feed(b"\n\ndata: 1"), *decoder.finish()]
    assert [event.data for event in found] == [b"1"]


def test_a_line_of_many_pieces_is_whole() -> None:
    decoder = EventDecoder()
    pieces = [b"da", b"ta", b"", b": 1", b"2\r", b"", b"\nda", b"ta: 3\n", b"\r", b"\nevent: x\n"]
    assert [event.data for piece in pieces for event in decoder.feed(piece)] == [b"12\n3"]

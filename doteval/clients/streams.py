"""Observes reply bodies that callers read as a stream, and reads their server-sent events as the SDK does."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple

_DONE = b"[DONE]"
_OBSERVED = "_doteval_observed"


class ServerSentEvent(NamedTuple):
    """An event of a stream: its name, often empty, and its data."""

    name: bytes
    data: bytes


class EventDecoder:
    r"""Reads server-sent events, however they are split into chunks.

    Lines end with a line feed, a carriage return or both, and an event may have several lines of data.

    >>> EventDecoder().feed(b"data: 1\n\ndata: 2\r\n\r\ndata: 3")
    [ServerSentEvent(name=b'', data=b'1'), ServerSentEvent(name=b'', data=b'2')]
    """

    def __init__(self) -> None:
        # The pieces of a line that is not complete: adding each to a text would take quadratic time.
        self._rest: list[bytes] = []
        self._after_return = False
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """The events that are complete with this chunk."""
        if not chunk:
            return []
        if self._after_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_return = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        begun, *others = chunk.split(b"\n")
        if begun:
            self._rest.append(begun)
        if not others:
            return []
        lines = [b"".join(self._rest), *others[:-1]]
        self._rest = [others[-1]]
        events: list[ServerSentEvent] = []
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            elif not line and self._data:
                events.append(ServerSentEvent(self._name, b"\n".join(self._data)))
                self._name, self._data = b"", []
            elif not line:
                self._name = b""
        return events

    def finish(self) -> list[ServerSentEvent]:
        """The event at the end of the body, if no empty line follows it."""
        return self.feed(b"\n\n")


class StreamObserver:
    """Sees the body of a reply while the caller reads it. One of the last three methods is called, once.

    What `on_event` or `on_end` raises is raised in the caller, who is reading.
    """

    def on_chunk(self, chunk: bytes) -> None:
        """The caller is about to get a part of the body."""

    def on_event(self, event: ServerSentEvent) -> None:
        """The caller is about to get the end of this event, if the body consists of events."""

    def on_end(self) -> None:
        """The caller has read all of it."""

    def on_error(self) -> None:
        """Reading failed before the end."""

    def on_abandoned(self) -> None:
        """The caller left it unread, or half read.

        The garbage collector may call this at any moment, so it must not wait for a lock.
        """


def events_in(content: bytes) -> list[ServerSentEvent]:
    r"""The events of a whole body, ``[DONE]`` among them.

    >>> [event.data for event in events_in(b"data: {}\n\ndata: [DONE]\n\n")]
    [b'{}', b'[DONE]']
    """
    decoder = EventDecoder()
    return [*decoder.feed(content), *decoder.finish()]


def is_done(event: ServerSentEvent) -> bool:
    """Whether an event is OpenAI's last one, after which the SDK reads no further."""
    return event.data.startswith(_DONE)


def observe(response: Any, observer: StreamObserver, *, events: bool) -> None:
    """Have `observer` see the body of a response that is read with `iter_bytes`.

    Observers are notified in the order in which they were added. `events`: whether the body consists of server-sent
    events.
    """
    body = _new_body(response, observer, events=events)
    if body is None:
        return
    iterate: Callable[..., Iterator[bytes]] = response.iter_bytes
    close: Callable[[], None] = response.close

    def iterate_observed(*arguments: Any, **options: Any) -> Iterator[bytes]:
        with body:
            for chunk in iterate(*arguments, **options):
                body.pass_on(chunk)
                yield chunk
                body.is_being_read = True

    def close_observed() -> None:
        try:
            close()
        finally:
            body.closed()

    response.iter_bytes = iterate_observed
    response.close = close_observed


def observe_async(response: Any, observer: StreamObserver, *, events: bool) -> None:
    """`observe` for a response that is read with `aiter_bytes`."""
    body = _new_body(response, observer, events=events)
    if body is None:
        return
    iterate: Callable[..., AsyncIterator[bytes]] = response.aiter_bytes
    close: Callable[[], Awaitable[None]] = response.aclose

    async def iterate_observed(*arguments: Any, **options: Any) -> AsyncIterator[bytes]:
        with body:
            async for chunk in iterate(*arguments, **options):
                body.pass_on(chunk)
                yield chunk
                body.is_being_read = True

    async def close_observed() -> None:
        try:
            await close()
        finally:
            body.closed()

    response.aiter_bytes = iterate_observed
    response.aclose = close_observed


def _new_body(response: Any, observer: StreamObserver, *, events: bool) -> _Body | None:
    """The body of a response that nobody has observed so far; None if it has one, which notifies `observer` too."""
    known: _Body | None = getattr(response, _OBSERVED, None)
    if known is not None:
        known.add(observer)
        return None
    body = _Body(observer, events=events)
    setattr(response, _OBSERVED, body)
    # A caller may drop the response without reading or closing it.
    weakref.finalize(response, body.abandoned).atexit = False
    return body


class _Body:
    """A body and its observers. The body is read inside a ``with`` block.

    A close while the next bytes are awaited is the HTTP client's own, at the end of the body.
    """

    def __init__(self, observer: StreamObserver, *, events: bool) -> None:
        self.is_being_read = False
        self._observers = [observer]
        self._decoder = EventDecoder() if events else None

    def add(self, observer: StreamObserver) -> None:
        """Notify one more observer, after the others."""
        self._observers.append(observer)

    def __enter__(self) -> None:
        self.is_being_read = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if error is None:
            try:
                if self._decoder is not None and self._observers:
                    self._pass_events(self._decoder.finish())
                self._ended()
            except Exception:
                self._failed()
                raise
        elif isinstance(error, Exception):
            self._failed()
        else:
            self.abandoned()

    def pass_on(self, chunk: bytes) -> None:
        """The caller is about to get `chunk`."""
        for observer in self._observers:
            observer.on_chunk(chunk)
        if self._decoder is not None and self._observers:
            self._pass_events(self._decoder.feed(chunk))
        # Only now: what an observer raises makes the HTTP client close the body.
        self.is_being_read = False

    def closed(self) -> None:
        if not self.is_being_read:
            self.abandoned()

    def abandoned(self) -> None:
        observers, self._observers = self._observers, []
        for observer in observers:
            observer.on_abandoned()

    def _pass_events(self, events: list[ServerSentEvent]) -> None:
        for event in events:
            for observer in self._observers:
                observer.on_event(event)
            if is_done(event):
                self._ended()
                return

    def _ended(self) -> None:
        while self._observers:
            self._observers.pop(0).on_end()

    def _failed(self) -> None:
        observers, self._observers = self._observers, []
        for observer in observers:
            observer.on_error()

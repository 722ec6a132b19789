"""Observes reply bodies that callers read as a stream."""

from __future__ import annotations

import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Protocol

# On a line of its own: within the text of a reply line breaks are escaped.
_DONE = re.compile(rb"\ndata: ?\[DONE\]")
_LONGEST = len(b"\ndata: [DONE]")


class StreamObserver(Protocol):
    """Sees the body of a reply while the caller reads it. One of the `on_` methods but `on_chunk` is called, once."""

    def on_chunk(self, chunk: bytes) -> None:
        """The caller is about to get a part of the body."""

    def on_end(self) -> None:
        """The caller has read all of it."""

    def on_error(self) -> None:
        """Reading failed before the end."""

    def on_abandoned(self) -> None:
        """The caller left it unread, or half read.

        The garbage collector may call this at any moment, so it must not wait for a lock.
        """


def is_done(events: bytes) -> bool:
    r"""Whether server-sent events hold OpenAI's last one, after which the SDK reads no further.

    >>> is_done(b"data: {}\n\ndata: [DONE]\n\n")
    True
    """
    return _DONE.search(b"\n" + events) is not None


def observe(response: Any, observer: StreamObserver) -> None:
    """Have `observer` see the body of a response that is read with `iter_bytes`."""
    iterate: Callable[..., Iterator[bytes]] = response.iter_bytes
    close: Callable[[], None] = response.close
    body = _Body(response, observer)

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


def observe_async(response: Any, observer: StreamObserver) -> None:
    """Have `observer` see the body of a response that is read with `aiter_bytes`."""
    iterate: Callable[..., AsyncIterator[bytes]] = response.aiter_bytes
    close: Callable[[], Awaitable[None]] = response.aclose
    body = _Body(response, observer)

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


class _Body:
    """A body and its observer. The body is read inside a ``with`` block.

    A close while the next bytes are awaited is the HTTP client's own, at the end of the body.
    """

    def __init__(self, response: Any, observer: StreamObserver) -> None:
        self.is_being_read = False
        self._observer: StreamObserver | None = observer
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        self._recent: bytes | None = b"\n" if is_events else None
        # A caller may drop the response without reading or closing it.
        weakref.finalize(response, self._notify, "on_abandoned").atexit = False

    def __enter__(self) -> None:
        self.is_being_read = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self._notify("on_end")
        else:
            self._notify("on_error" if issubclass(kind, Exception) else "on_abandoned")

    def pass_on(self, chunk: bytes) -> None:
        """The caller is about to get `chunk`."""
        self.is_being_read = False
        if self._observer is None:
            return
        self._observer.on_chunk(chunk)
        if self._recent is not None:
            self._recent += chunk
            if _DONE.search(self._recent):
                self._notify("on_end")
            self._recent = self._recent[-_LONGEST:]

    def closed(self) -> None:
        if not self.is_being_read:
            self._notify("on_abandoned")

    def _notify(self, event: Literal["on_end", "on_error", "on_abandoned"]) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            getattr(observer, event)()

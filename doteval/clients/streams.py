"""Bodies of replies that callers read as they come: who watches one sees what they read, and hears how that ended."""

from __future__ import annotations

import re
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any, Literal, Protocol

# In a line of its own: in the text of a reply the line breaks are escaped.
_DONE = re.compile(rb"\ndata: ?\[DONE\]")
_LONGEST = len(b"\ndata: [DONE]")


class Watcher(Protocol):
    """Sees the body of a reply while the caller reads it, and is told its end once."""

    def feed(self, chunk: bytes) -> None: ...

    def ended(self) -> None:
        """The caller has read all of it."""

    def broke(self) -> None:
        """It broke off."""

    def left(self) -> None:
        """The caller left it unread, or half read.

        The garbage collector may be the one who says so, in the middle of anything: it must not wait for a lock.
        """


def is_done(events: bytes) -> bool:
    """Whether server-sent events hold the last one of OpenAI's, after which the SDK reads no further."""
    return _DONE.search(b"\n" + events) is not None


def watch(response: Any, watcher: Watcher) -> None:
    """Have a watcher see the body of a response that is read with `iter_bytes`."""
    iterate: Callable[..., Iterator[bytes]] = response.iter_bytes
    close: Callable[[], None] = response.close
    body = _Body(response, watcher)

    def iterate_watched(*arguments: Any, **options: Any) -> Iterator[bytes]:
        with body:
            for chunk in iterate(*arguments, **options):
                body.hand_out(chunk)
                yield chunk
                body.is_being_read = True

    def close_watched() -> None:
        try:
            close()
        finally:
            body.closed()

    response.iter_bytes = iterate_watched
    response.close = close_watched


def watch_async(response: Any, watcher: Watcher) -> None:
    """Have a watcher see the body of a response that is read with `aiter_bytes`."""
    iterate: Callable[..., AsyncIterator[bytes]] = response.aiter_bytes
    close: Callable[[], Awaitable[None]] = response.aclose
    body = _Body(response, watcher)

    async def iterate_watched(*arguments: Any, **options: Any) -> AsyncIterator[bytes]:
        with body:
            async for chunk in iterate(*arguments, **options):
                body.hand_out(chunk)
                yield chunk
                body.is_being_read = True

    async def close_watched() -> None:
        try:
            await close()
        finally:
            body.closed()

    response.aiter_bytes = iterate_watched
    response.aclose = close_watched


class _Body:
    """One body, and who watches it. Inside a block of it the body is read.

    A close while bytes are waited for is the HTTP client's own, at the end of the body.
    """

    def __init__(self, response: Any, watcher: Watcher) -> None:
        self.is_being_read = False
        self._watcher: Watcher | None = watcher
        is_events = response.headers.get("content-type", "").startswith("text/event-stream")
        self._recent: bytes | None = b"\n" if is_events else None
        # Whoever drops it need not have read or closed it.
        weakref.finalize(response, self._tell, "left").atexit = False

    def __enter__(self) -> None:
        self.is_being_read = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if kind is None:
            self._tell("ended")
        else:
            self._tell("broke" if issubclass(kind, Exception) else "left")

    def hand_out(self, chunk: bytes) -> None:
        """The caller gets so much of it."""
        self.is_being_read = False
        if self._watcher is None:
            return
        self._watcher.feed(chunk)
        if self._recent is not None:
            self._recent += chunk
            if _DONE.search(self._recent):
                self._tell("ended")
            self._recent = self._recent[-_LONGEST:]

    def closed(self) -> None:
        if not self.is_being_read:
            self._tell("left")

    def _tell(self, how: Literal["ended", "broke", "left"]) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            getattr(watcher, how)()

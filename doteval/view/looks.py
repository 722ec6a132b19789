"""Answers the looks of pages that are open: what many look at is made once, and no more often than there is time for.

The script of an open page asks for it again and again, with a header that says so. What it gets may be a few seconds
old. Who follows a link gets a page that is made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

from doteval.core import clocks
from doteval.view.time_shares import TimeShare
from doteval.view.visit import COMPUTING_SECONDS

# What the script sends, and what it gets: the seconds until it shall look again.
LOOK_HEADER = "Doteval-Look"
AGAIN_HEADER = "Doteval-Look-Again"

# Seconds between two looks at a page. Many pages that are slow to make take more than their share at the longest.
_LONGEST_SECONDS = 60.0
_LEAST_SECONDS = 1.0
# Bytes of all answers that are kept.
_MOST_BYTES = 8_000_000


@dataclass(frozen=True, slots=True)
class MadePage:
    """A page as it was made.

    live_seconds: how often the page is to be looked at, None for never.
    seconds: the work to make it, by `work_clock`.
    """

    status: int
    body: bytes
    media_type: str
    live_seconds: int | None = None
    seconds: float = 0.0
    tag: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tag", f'"{hashlib.blake2b(self.body, digest_size=16).hexdigest()}"')


@dataclass(frozen=True, slots=True)
class _Kept:
    answer: MadePage
    until: float


class Looks:
    """Keeps the newest answer of each page for those who look at it. It belongs to an event loop."""

    def __init__(self, share: TimeShare | None = None) -> None:
        self._share = TimeShare() if share is None else share
        self._kept: OrderedDict[Hashable, _Kept] = OrderedDict()
        self._bytes = 0
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def look(self, page: Hashable, make: Callable[[], Awaitable[MadePage]]) -> MadePage:
        """The answer for a look at a page, which is made if it is time to; others who look meanwhile get the same."""
        lock = self._locks.setdefault(page, asyncio.Lock())
        async with lock:
            found = self._kept.get(page)
            if found is not None and clocks.monotonic() < found.until:
                return found.answer
            answer = await make()
            if answer.live_seconds is not None:
                self._share.note(page, answer.seconds, least=answer.live_seconds)
            self.keep(page, answer)
            return answer

    def keep(self, page: Hashable, answer: MadePage) -> None:
        """Keep an answer for those who look at the page next."""
        before = self._kept.pop(page, None)
        self._bytes -= 0 if before is None else len(before.answer.body)
        if answer.live_seconds is None:
            return
        self._kept[page] = _Kept(answer, clocks.monotonic() + self._interval(answer.live_seconds))
        self._bytes += len(answer.body)
        while self._bytes > _MOST_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= len(oldest.answer.body)

    def again(self, page: Hashable, answer: MadePage) -> float | None:
        """The seconds until a page shall be looked at again, None for never."""
        if answer.live_seconds is None:
            return None
        found = self._kept.get(page)
        left = self._interval(answer.live_seconds) if found is None else found.until - clocks.monotonic()
        return max(_LEAST_SECONDS, left)

    def _interval(self, live_seconds: int) -> float:
        if live_seconds <= COMPUTING_SECONDS:
            # The reader waits for something that takes a processor much longer than its page does.
            return live_seconds
        return max(float(live_seconds), min(self._share.interval(), _LONGEST_SECONDS))

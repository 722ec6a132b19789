"""Event loops for the threads of sync rows, which may ask for one as they may on the main thread."""

from __future__ import annotations

import asyncio
from typing import Any


class _LazyEventLoop(asyncio.SelectorEventLoop):
    """An event loop that opens its three files when it is first used: most rows in threads never use theirs."""

    def __init__(self) -> None:
        """Leave the loop without any attribute, so that the first use comes to `__getattr__`."""

    def __getattr__(self, name: str) -> Any:
        if "_closed" in vars(self):
            raise AttributeError(name)
        super().__init__()
        return getattr(self, name)

    def close(self) -> None:
        if "_closed" in vars(self):
            super().close()
        else:
            # What `asyncio.BaseEventLoop.is_closed` returns.
            self._closed = True


class ThreadLoops:
    """Gives each thread that calls `set_loop` an event loop, until `close`."""

    def __init__(self) -> None:
        self._loops: list[asyncio.AbstractEventLoop] = []

    def set_loop(self) -> None:
        """Set an event loop in this thread if it has none, as after `asyncio.run`."""
        try:
            asyncio.get_event_loop()
        except RuntimeError:
            loop = _LazyEventLoop()
            self._loops.append(loop)
            asyncio.set_event_loop(loop)

    def close(self) -> None:
        """Close the loops, whose threads have ended."""
        for loop in self._loops:
            loop.close()

"""Marks the model calls that judges make, through a context variable that a client reads when a call begins."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

_is_judging: ContextVar[bool] = ContextVar("doteval_judging", default=False)

is_judging: Callable[[], bool] = _is_judging.get
"""Whether the code that calls it runs inside a block of `judging`."""


class judging:  # noqa: N801 (reads as a function, like `metering`)
    """Mark the model calls inside the block as those of a judge, also in tasks and threads that take its context.

    >>> with judging():
    ...     is_judging()
    True
    """

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _is_judging.set(True)

    def __exit__(self, *_: object) -> None:
        _is_judging.reset(self._token)


def as_judge(question: Callable[[], Any]) -> Any:
    """What `question` returns, whose model calls are a judge's; to be awaited if it returns something to await.

    >>> as_judge(is_judging), is_judging()
    (True, False)
    """
    with judging():
        answer = question()
    return _awaited_as_judge(answer) if inspect.isawaitable(answer) else answer


async def _awaited_as_judge(answer: Awaitable[Any]) -> Any:
    # A coroutine runs in the context of those who await it, not in that of those who have made it.
    with judging():
        return await answer

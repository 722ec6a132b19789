"""Runs the async fixtures of evaluations on the process's one event loop.

While such a fixture is set up, its definition holds a sync function in place of the async one, so that pytest and
plugins for async tests (pytest-asyncio, anyio) leave it alone.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import pytest

from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.row_context import RowItem
from doteval.runner.event_loop import LoopThread

# The event loop of a pytest session, in `config.stash`.
loop_key = pytest.StashKey[LoopThread]()


@contextlib.contextmanager
def on_loop(definition: Any, request: pytest.FixtureRequest, loop: LoopThread) -> Iterator[None]:
    """Inside the block, a fixture of an evaluation is set up on the loop if it is async.

    Async fixtures of tests are left to pytest and its plugins.
    """
    function = definition.func
    if not isinstance(request._pyfuncitem, EvaluationItem | RowItem) or not _is_async(function):
        yield
        return
    resolved = internals.resolve_fixture_function(definition, request)
    definition.func = _as_sync(resolved, definition.argname, loop, _lock_of(request))
    try:
        yield
    finally:
        definition.func = function


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _as_sync(
    function: Callable[..., Any], name: str, loop: LoopThread, lock: threading.RLock | None
) -> Callable[..., Any]:
    """A sync fixture function that runs an async one on the loop."""
    if not inspect.isasyncgenfunction(function):

        def value(**arguments: Any) -> Any:
            return loop.wait_for(function(**arguments), lock)

        return value

    def yielded(**arguments: Any) -> Iterator[Any]:
        generator = function(**arguments)
        yield loop.wait_for(_first(generator, name), lock)
        loop.wait_for(_last(generator, name), lock)

    return yielded


async def _first(generator: AsyncGenerator[Any, None], name: str) -> Any:
    try:
        return await anext(generator)
    except StopAsyncIteration:
        raise ValueError(f"the async fixture {name} did not yield a value") from None


async def _last(generator: AsyncGenerator[Any, None], name: str) -> None:
    try:
        await anext(generator)
    except StopAsyncIteration:
        return
    pytest.fail(f"the async fixture {name} has more than one 'yield'", pytrace=False)


def _lock_of(request: Any) -> threading.RLock | None:
    """The lock that is held while a row is set up. It is released meanwhile: a row on the loop may look fixtures up."""
    item = request._pyfuncitem
    return item.context.lock if isinstance(item, RowItem) else None

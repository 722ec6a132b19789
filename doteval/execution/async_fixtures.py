"""Async fixtures, with no plugin: they run on the process's one event loop."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, cast

import pytest

from doteval.execution import pytest_internals as internals
from doteval.execution.event_loop import LoopThread
from doteval.execution.items import EvaluationItem, RowItem


def is_async_fixture(definition: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> bool:
    """Whether the fixture is async and set up for an evaluation: those of tests are not ours."""
    function = definition.func
    return isinstance(request._pyfuncitem, EvaluationItem | RowItem) and (
        inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
    )


def set_up_async_fixture(definition: Any, request: Any, loop: LoopThread) -> Any:
    """Set up an async fixture on the loop, as pytest sets up sync ones: cached, torn down last first.

    Raises what the fixture raises.
    """
    arguments = {name: request.getfixturevalue(name) for name in definition.argnames}
    function = internals.resolve_fixture_function(definition, request)
    key = definition.cache_key(request)
    lock = _lock_of(request)
    try:
        if inspect.isasyncgenfunction(function):
            generator = function(**arguments)
            value = loop.wait_for(_first(generator, definition.argname), lock)
            request.addfinalizer(functools.partial(_finish, loop, generator, definition.argname, lock))
        else:
            value = loop.wait_for(cast(Coroutine[Any, Any, Any], function(**arguments)), lock)
    except (Exception, pytest.skip.Exception, pytest.fail.Exception) as error:
        definition.cached_result = (None, key, (error, error.__traceback__))
        raise
    definition.cached_result = (value, key, None)
    return value


async def _first(generator: AsyncGenerator[Any, None], name: str) -> Any:
    try:
        return await anext(generator)
    except StopAsyncIteration:
        raise ValueError(f"the async fixture {name} did not yield a value") from None


def _finish(loop: LoopThread, generator: AsyncGenerator[Any, None], name: str, lock: threading.RLock | None) -> None:
    loop.wait_for(_last(generator, name), lock)


def _lock_of(request: Any) -> threading.RLock | None:
    """The lock that is held while a row is set up and torn down: a row on the loop may look fixtures up."""
    item = request._pyfuncitem
    return item.lane.lock if isinstance(item, RowItem) else None


async def _last(generator: AsyncGenerator[Any, None], name: str) -> None:
    try:
        await anext(generator)
    except StopAsyncIteration:
        return
    pytest.fail(f"the async fixture {name} has more than one 'yield'", pytrace=False)

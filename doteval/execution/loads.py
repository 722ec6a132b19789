"""Watching session fixtures load: how often, how long, and what they say of themselves."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from doteval.execution.failures import describe
from doteval.execution.items import EvaluationItem, RowItem

Stats = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a session fixture in this process. `seconds` leaves out the fixtures it requests."""

    fixture: str
    node: str
    seconds: float
    evaluation: EvaluationItem | None
    value: Any = None
    error: str | None = None

    def stats(self) -> Stats | None:
        """What the value's `get_stats()` says now, None if it has none or says nothing usable."""
        get_stats = getattr(self.value, "get_stats", None)
        if not callable(get_stats):
            return None
        try:
            stats = get_stats()
        except Exception as error:  # noqa: BLE001 - a broken get_stats must not cost the rows
            return {"get_stats failed": f"{type(error).__name__}: {error}"}
        return stats if isinstance(stats, str | Mapping) else None


class LoadObserver(Protocol):
    """Is told of the loads of session fixtures, on the thread that loads them."""

    def loaded(self, load: Load) -> None: ...
    def load_failed(self, load: Load) -> None: ...
    def unloading(self, load: Load) -> None: ...


class LoadWatch:
    """A pytest plugin that times session fixtures and tells an observer."""

    def __init__(self, observer: LoadObserver) -> None:
        self._observer = observer

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if request.scope != "session" or (not fixturedef.baseid and _is_of_pytest(fixturedef)):
            return (yield)
        start = time.perf_counter()
        item = request._pyfuncitem
        evaluation = item if isinstance(item, EvaluationItem) else None
        if isinstance(item, RowItem):
            evaluation = item.lane.item
        try:
            value = yield
        except BaseException as error:
            description = describe(error)
            self._observer.load_failed(
                Load(
                    fixturedef.argname,
                    fixturedef.baseid,
                    time.perf_counter() - start,
                    evaluation,
                    error=f"{description.type}: {description.message}",
                )
            )
            raise
        load = Load(fixturedef.argname, fixturedef.baseid, time.perf_counter() - start, evaluation, value)
        self._observer.loaded(load)
        # Finalizers are called last first, so this one sees the value before its teardown does.
        request.addfinalizer(lambda: self._observer.unloading(load))
        return value


def _is_of_pytest(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return fixturedef.func.__module__.partition(".")[0] in ("_pytest", "xdist", "pytest_asyncio", "anyio")

"""Observes how session fixtures load: how often, for how long, and what their `get_stats()` returns."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from doteval.core import clocks
from doteval.core.error_leaves import in_one_line
from doteval.core.metering import current_meter, metering
from doteval.core.results import Usage
from doteval.pytest_runtime.items import EvaluationItem
from doteval.pytest_runtime.row_context import RowItem
from doteval.runner.error_classes import describe, is_skip

Stats = Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class Load:
    """One load of a session fixture in this process. `seconds` is without the fixtures that it requests."""

    fixture: str
    node: str
    seconds: float
    evaluation: EvaluationItem | None
    value: Any = None
    error: str | None = None
    skipped: bool = False

    def stats(self) -> Stats | None:
        """What the value's `get_stats()` returns now, None if there is none or it returns no text or mapping."""
        get_stats = getattr(self.value, "get_stats", None)
        if not callable(get_stats):
            return None
        try:
            stats = get_stats()
        except Exception as error:  # noqa: BLE001 - a broken get_stats must not cost the rows
            return {"get_stats failed": in_one_line(error)}
        return stats if isinstance(stats, str | Mapping) else None


class LoadObserver(Protocol):
    """Is notified of loads of session fixtures, on the thread that loads them.

    `used` reports usage of a shared fixture that was set up for no evaluation in particular: before a worker process
    had rows to run, or by pytest itself.
    """

    def loaded(self, load: Load) -> None: ...
    def load_failed(self, load: Load) -> None: ...
    def unloading(self, load: Load) -> None: ...
    def used(self, definition: object, evaluation: EvaluationItem | None, usage: tuple[Usage, ...]) -> None: ...


class LoadTimer:
    """A pytest plugin that times loads of session fixtures and notifies an observer."""

    def __init__(self, observer: LoadObserver) -> None:
        self._observer = observer

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        if request.scope == "function" or current_meter() is not None:
            return (yield from self._watched(fixturedef, request))
        with metering() as meter:
            try:
                return (yield from self._watched(fixturedef, request))
            finally:
                if used := meter.reading():
                    self._observer.used(fixturedef, _evaluation_of(request), used)

    def _watched(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> Generator[None, Any, Any]:
        if request.scope != "session" or (not fixturedef.baseid and _is_of_pytest(fixturedef)):
            return (yield)
        start = clocks.perf_counter()
        evaluation = _evaluation_of(request)
        try:
            value = yield
        except BaseException as error:
            description = describe(error)
            self._observer.load_failed(
                Load(
                    fixturedef.argname,
                    fixturedef.baseid,
                    clocks.perf_counter() - start,
                    evaluation,
                    error=f"{description.type}: {description.message}",
                    skipped=is_skip(error),
                )
            )
            raise
        load = Load(fixturedef.argname, fixturedef.baseid, clocks.perf_counter() - start, evaluation, value)
        self._observer.loaded(load)
        # Finalizers are called last first, so this one sees the value before its teardown.
        request.addfinalizer(lambda: self._observer.unloading(load))
        return value


def _evaluation_of(request: pytest.FixtureRequest) -> EvaluationItem | None:
    item = request._pyfuncitem
    if isinstance(item, RowItem):
        return item.context.item
    return item if isinstance(item, EvaluationItem) else None


def _is_of_pytest(fixturedef: pytest.FixtureDef[Any]) -> bool:
    return fixturedef.func.__module__.partition(".")[0] in ("_pytest", "xdist", "pytest_asyncio", "anyio")

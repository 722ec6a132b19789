"""Wraps the private names of pytest that the row runner needs, each in a function or class of its own.

`tests/unit/pytest_runtime/test_pytest_internals.py` tests each of them against the range of pytest versions that
pyproject.toml pins.
"""

from __future__ import annotations

import copy
import importlib
import logging
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import pytest
from _pytest.config import default_plugins
from _pytest.fixtures import (
    FixtureDef,
    FixtureLookupError,
    FuncFixtureInfo,
    SubRequest,
    TopRequest,
    resolve_fixture_function,
)
from _pytest.logging import LogCaptureHandler, caplog_handler_key, caplog_records_key, catching_logs
from _pytest.python import get_direct_param_fixture_func
from _pytest.runner import SetupState
from _pytest.scope import Scope
from _pytest.skipping import evaluate_skip_marks, evaluate_xfail_marks
from _pytest.tmpdir import tmppath_result_key

__all__ = [
    "FixtureDef",
    "FuncFixtureInfo",
    "RowRequest",
    "RowSetupState",
    "Scope",
    "SetupState",
    "SubRequest",
    "expected_failure",
    "fixture_definitions",
    "fixture_info",
    "fresh_copy",
    "generate_functions",
    "import_plugins",
    "is_constant",
    "is_per_row",
    "is_pytests",
    "loaded_view",
    "lookup_error_text",
    "prepare_stash",
    "raise_marks",
    "raise_missing_fixture",
    "renew_request",
    "resolve_fixture_function",
    "scope_of",
    "set_up_session",
    "skip_text",
    "skipped",
    "start_log_capture",
    "strict_expected_failure",
    "tear_down_silently",
    "teardown_under_way",
    "use_row_setup_state",
]


class RowSetupState(SetupState):
    """A set-up state that lets any number of rows overlap.

    pytest's own state has one stack, so only one item can be set up at a time. Here the stack is for wider fixtures,
    and each row has its own finalizers.
    """

    def is_node_active(self, node: pytest.Item | pytest.Collector) -> bool:  # type: ignore[override]
        # An evaluation counts as active while it loads session fixtures ahead of its own set-up.
        return (
            getattr(node, "row_finalizers", None) is not None
            or getattr(node, "loading", False)
            or super().is_node_active(node)
        )

    def addfinalizer(self, finalizer: Callable[[], object], node: Any) -> None:
        finalizers = getattr(node, "row_finalizers", None)
        if finalizers is not None:
            finalizers.append(finalizer)
        else:
            super().addfinalizer(finalizer, node)


class RowRequest(TopRequest):  # type: ignore[misc] # final for typing only
    """The `request` of a row: look-ups during the call take the lock that protects set-up."""

    def __init__(self, item: pytest.Function, lock: Any) -> None:
        super().__init__(item, _ispytest=True)
        self._lock = lock

    def _get_active_fixturedef(self, argname: str) -> FixtureDef[object]:
        known = self._fixture_defs.get(argname)
        if known is not None:
            return known
        with self._lock:
            return super()._get_active_fixturedef(argname)


class LoadedFixture(FixtureDef[object]):
    """A view of a wide fixture that is loaded: it returns the value and drops finalizers.

    Without it, each row would leave a finalizer behind in every wide fixture that its function fixtures request.
    """

    def execute(self, request: SubRequest) -> object:  # noqa: ARG002
        assert self.cached_result is not None
        return self.cached_result[0]

    def addfinalizer(self, finalizer: Callable[[], object]) -> None:
        pass


def import_plugins() -> None:
    """Import pytest's own plugins, which it imports when it starts."""
    for name in default_plugins:
        importlib.import_module(f"_pytest.{name}")


def use_row_setup_state(session: pytest.Session) -> None:
    """Replace the session's set-up state, before anything is set up."""
    session._setupstate = RowSetupState()


def set_up_session(session: pytest.Session) -> None:
    """Set up the session node alone, so that session fixtures can be loaded before any row."""
    state = session._setupstate
    if not state.stack:
        state.setup(session)  # type: ignore[arg-type]


def tear_down_silently(item: pytest.Item, following: pytest.Item | None) -> None:
    """Tear down what the following item does not share, without the hooks of a teardown."""
    item.session._setupstate.teardown_exact(following)


def generate_functions(collector: pytest.Module | pytest.Class, name: str, obj: object) -> Iterator[pytest.Function]:
    """The items of a function, one for each of its parameter sets."""
    return collector._genfunctions(name, obj)


def fixture_info(item: pytest.Function) -> FuncFixtureInfo:
    """Which fixtures the item requests, and their definitions."""
    return item._fixtureinfo


def scope_of(definition: FixtureDef[Any], item: pytest.Function) -> Scope:
    """The scope of a fixture for this item: `parametrize(scope=...)` overrides the fixture's own."""
    callspec = getattr(item, "callspec", None)
    scope: Scope = definition._scope
    return scope if callspec is None else callspec._arg2scope.get(definition.argname, scope)


def is_per_row(definition: FixtureDef[Any], item: pytest.Function) -> bool:
    """Whether each row has an instance of its own.

    That holds for function scope, and for class scope outside of a class, where pytest falls back to the function.
    """
    scope = scope_of(definition, item)
    return scope is Scope.Function or (scope is Scope.Class and item.cls is None)


def is_constant(definition: FixtureDef[Any]) -> bool:
    """Whether the fixture is a value of `parametrize`, the same object for every row."""
    return definition.func is get_direct_param_fixture_func


def is_pytests(definition: FixtureDef[Any]) -> bool:
    """Whether the fixture is one of pytest's own."""
    return definition.func.__module__.startswith("_pytest.")


def fresh_copy(definition: FixtureDef[Any]) -> FixtureDef[Any]:
    """A copy of a fixture definition that loads anew, whatever the original has cached."""
    fresh = copy.copy(definition)
    fresh.cached_result = None
    fresh._finalizers = []  # type: ignore[misc]
    return fresh


def loaded_view(definition: FixtureDef[Any]) -> FixtureDef[Any]:
    """A `LoadedFixture` for a definition that has a value, else the definition itself."""
    if definition.cached_result is None or definition.cached_result[2] is not None:
        return definition
    view = copy.copy(definition)
    view.__class__ = LoadedFixture
    return view


def raising_fixture(item: pytest.Function, error: BaseException) -> str | None:
    """The name of the fixture of an evaluation that has raised an exception, None if it came from elsewhere."""
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():
        for definition in definitions:
            cached = definition.cached_result
            if cached is not None and cached[2] is not None and cached[2][0] is error:
                return name
    return None


def fixture_definitions(item: pytest.Function, name: str) -> Sequence[FixtureDef[Any]] | None:
    """The definitions of a fixture name that the item can see, for names that it does not declare."""
    return item.session._fixturemanager.getfixturedefs(name, item)


def renew_request(item: pytest.Function) -> None:
    """Forget the fixtures that the item has looked up."""
    item._initrequest()


def prepare_stash(item: pytest.Item) -> None:
    """Put on the item what pytest's run protocol would, and what `tmp_path` reads at teardown."""
    item.stash[tmppath_result_key] = {}


def teardown_under_way(frame: FrameType | None) -> tuple[FrameType, FixtureDef[Any]] | None:
    """The frame that tears a fixture down and the fixture, None if none does. `frame` is the thread's innermost."""
    while frame is not None:
        if frame.f_code is FixtureDef.finish.__code__:
            return frame, frame.f_locals["self"]
        frame = frame.f_back
    return None


def raise_marks(item: pytest.Item) -> None:
    """Raise what the marks `skip`, `skipif` and `xfail(run=False)` raise when pytest sets the item up."""
    if not item.config.pluginmanager.has_plugin("skipping"):
        return
    found = evaluate_skip_marks(item)
    if found is not None:
        raise pytest.skip.Exception(found.reason, _use_item_location=True)
    expected = None if item.config.option.runxfail else evaluate_xfail_marks(item)
    if expected is not None and not expected.run:
        raise pytest.xfail.Exception(f"[NOTRUN] {expected.reason}", pytrace=False)


def expected_failure(item: pytest.Item, error: BaseException) -> str | None:
    """The reason of the xfail mark that expects an error of the item, None if none does."""
    expected = _xfail(item)
    if expected is None:
        return None
    raises = expected.raises
    if raises is None or (isinstance(error, raises) if isinstance(raises, type | tuple) else raises.matches(error)):
        return str(expected.reason)
    return None


def strict_expected_failure(item: pytest.Item) -> str | None:
    """The reason of the item's xfail mark if it is strict, so that the item must not pass; None without one."""
    expected = _xfail(item)
    return str(expected.reason) if expected is not None and expected.strict else None


def _xfail(item: pytest.Item) -> Any:
    if item.config.option.runxfail or not item.config.pluginmanager.has_plugin("skipping"):
        return None
    return evaluate_xfail_marks(item)


def raise_missing_fixture(item: pytest.Function) -> None:
    """Raise pytest's FixtureLookupError if a fixture that the item needs, directly or not, does not exist."""
    definitions = fixture_info(item).name2fixturedefs
    missing = next((name for name in item.fixturenames if name not in definitions and name != "request"), None)
    if missing is None:
        return
    request: Any = item._request
    asking = next((each for several in definitions.values() for each in several if missing in each.argnames), None)
    if asking is not None and missing not in fixture_info(item).argnames:
        # The error then shows the fixture that asks for it.
        request = SubRequest(request, scope_of(asking, item), None, 0, asking, _ispytest=True)
    raise FixtureLookupError(missing, request)


def lookup_error_text(error: FixtureLookupError) -> str:
    """What pytest says of a fixture that does not exist, with the names of those that do."""
    return error.formatrepr().errorstring


def skip_text(report: pytest.CollectReport) -> str:
    """The reason of a collect report of a file that was skipped."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def skipped(reason: str) -> BaseException:
    """The exception that makes pytest report the item as skipped, at the item's own line."""
    return pytest.skip.Exception(reason, _use_item_location=True)


def start_log_capture(item: pytest.Item) -> Callable[[], object]:
    """Start to capture the item's log for `caplog`, as pytest does for items that it runs itself.

    Returns a function that ends the capture.
    """
    handler = LogCaptureHandler()
    plugin = item.config.pluginmanager.get_plugin("logging-plugin")
    formatter = getattr(plugin, "formatter", None)
    handler.setFormatter(formatter if isinstance(formatter, logging.Formatter) else None)
    item.stash[caplog_handler_key] = handler
    item.stash[caplog_records_key] = dict.fromkeys(("setup", "call", "teardown"), handler.records)
    catching = catching_logs(handler, level=getattr(plugin, "log_level", None))
    catching.__enter__()
    return lambda: catching.__exit__(None, None, None)

"""Row contexts: the function-scoped fixtures of the rows in flight, which may overlap.

A row context serves one row (or batch) at a time, so there are as many of them as rows in flight. It owns copies of
the evaluation's function-scoped fixture definitions, so that each row in flight has instances of its own, and
shares the wider fixtures, which are loaded when the evaluation is set up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem
from doteval.runner.assignments import PreparedCall
from doteval.runner.error_classes import ends_command
from doteval.runner.timeouts import within


class RowItem(pytest.Function):
    """One row as a pytest item: holds its function-scoped fixtures and their finalizers."""

    row_finalizers: list[Callable[[], object]]
    context: RowContext

    def _initrequest(self) -> None:
        super()._initrequest()
        self.row_finalizers = []

    def __getattr__(self, name: str) -> Any:
        """What a plugin has set on the evaluation in its hooks, for the plugin's fixtures, which get the row.

        Raises AttributeError: when the evaluation has no such attribute.
        """
        context = vars(self).get("context")
        # pytest makes these for each item when it misses them: a row has its own instance of its class.
        if context is None or name in ("_obj", "_instance"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)
        return getattr(context.item, name)


class _ContextDefinitions(dict[str, Sequence[internals.FixtureDef[Any]]]):
    """The fixture definitions as one row context sees them, filled as names are looked up.

    Names that are not declared but looked up with `request.getfixturevalue` get definitions of the context's own as
    well.
    """

    def __init__(self, item: EvaluationItem) -> None:
        super().__init__()
        self.item = item
        self._declared = internals.fixture_info(item).name2fixturedefs

    def get(self, name: str, default: Any = None) -> Any:
        own = super().get(name)
        if own is not None:
            return own
        shared = self._declared.get(name)
        if shared is None:
            shared = internals.fixture_definitions(self.item, name)
        if shared is None:
            return default
        own = [self._own(definition) for definition in shared]
        if all(definition.cached_result is not None or self._is_per_row(definition) for definition in own):
            self[name] = own
        return own

    def _is_per_row(self, definition: internals.FixtureDef[Any]) -> bool:
        return internals.is_per_row(definition, self.item)

    def _own(self, definition: internals.FixtureDef[Any]) -> internals.FixtureDef[Any]:
        if self._is_per_row(definition):
            return internals.fresh_copy(definition)
        return internals.loaded_view(definition)


class RowContext:
    """Sets up the fixtures of one row at a time, and tears them down.

    `lock`: shared by all contexts of the process, since pytest's set-up is not thread-safe.
    """

    def __init__(self, item: EvaluationItem, lock: threading.RLock) -> None:
        self.item = item
        self.lock = lock
        shared = internals.fixture_info(item)
        self._info = internals.FuncFixtureInfo(
            argnames=shared.argnames,
            initialnames=shared.initialnames,
            names_closure=shared.names_closure,
            name2fixturedefs=_ContextDefinitions(item),
        )
        self._row: RowItem | None = None
        self.usable = True

    def set_up(self) -> PreparedCall:
        """Load a fresh instance of every function-scoped fixture.

        Raises what a fixture raises; `tear_down` must be called in any case.
        """
        with self.lock:
            row = self._row = self._new_row()
            row._request = internals.RowRequest(row, self.lock)
            internals.prepare_stash(row)
            if "caplog" in row.fixturenames:
                row.addfinalizer(internals.start_log_capture(row))
            # A fixture that raises something like SystemExit leaves its definition half set up.
            self.usable = False
            row.setup()
            self.usable = True
            wanted = internals.fixture_info(row).argnames
            return PreparedCall(row.obj, {name: row.funcargs[name] for name in wanted})

    def tear_down(self, timeout: float | None = None) -> list[BaseException]:
        """Tear down what `set_up` has loaded, last first, each fixture within `timeout` seconds (None: no limit).

        Returns what the teardowns raised. Raises only KeyboardInterrupt and pytest.exit.
        """
        row, self._row = self._row, None
        if row is None:
            return []
        raised: list[BaseException] = []
        with self.lock:
            while row.row_finalizers:
                try:
                    within(timeout, row.row_finalizers.pop(), what="it")
                except BaseException as error:  # noqa: BLE001 - reported with the row
                    raised.append(error)
        for each in raised:
            if ends_command(each):
                raise each
        return raised

    def _new_row(self) -> RowItem:
        template = self.item
        settings: dict[str, Any] = {"fixtureinfo": self._info, "originalname": template.originalname}
        if hasattr(template, "callspec"):
            settings["callspec"] = template.callspec
        if template.cls is None:
            settings["callobj"] = template.obj
        row: RowItem = RowItem.from_parent(template.parent, name=template.name, **settings)
        row.own_markers[:] = template.own_markers
        # pytest reports the evaluation, so that record_property in a row must write to it.
        row.user_properties = template.user_properties
        row.context = self
        return row

"""Lanes: set-up and teardown of rows that overlap.

A lane serves one row at a time; as many lanes as rows are in flight. It owns copies of the
evaluation's function-scoped fixture definitions, so that each row in flight has an instance of its
own, and shares the wider ones, which are loaded when the evaluation is set up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.items import EvaluationItem, RowItem
from doteval.runner.error_classes import ends_command
from doteval.runner.timeouts import within


class _LaneDefinitions(dict[str, Sequence[internals.FixtureDef[Any]]]):
    """A lane's own view of fixture definitions, filled as names are asked for.

    Names that were not declared, but asked for with `request.getfixturevalue`, must be the lane's
    own as well.
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


@dataclass(frozen=True, slots=True)
class Call:
    """A function and the fixture values to call it with."""

    function: Callable[..., Any]
    fixtures: Mapping[str, Any]


class Lane:
    """Sets up one row at a time, and tears it down. Not to be used for two rows at once."""

    def __init__(self, item: EvaluationItem, lock: threading.RLock) -> None:
        self.item = item
        self.lock = lock
        shared = internals.fixture_info(item)
        self._info = internals.FuncFixtureInfo(
            argnames=shared.argnames,
            initialnames=shared.initialnames,
            names_closure=shared.names_closure,
            name2fixturedefs=_LaneDefinitions(item),
        )
        self._row: RowItem | None = None
        self.usable = True

    def set_up(self) -> Call:
        """Load a fresh instance of every function-scoped fixture.

        Raises what a fixture raises; `tear_down` must be called in any case.
        """
        with self.lock:
            row = self._row = self._new_row()
            row._request = internals.RowRequest(row, self.lock)
            internals.prepare_stash(row)
            if "caplog" in row.fixturenames:
                row.addfinalizer(internals.start_log_capture(row))
            # A fixture that raised something like SystemExit leaves its definition half set up.
            self.usable = False
            row.setup()
            self.usable = True
            wanted = internals.fixture_info(row).argnames
            return Call(row.obj, {name: row.funcargs[name] for name in wanted})

    def tear_down(self, timeout: float | None = None) -> list[BaseException]:
        """Tear down what `set_up` loaded, last first, each for at most `timeout` seconds (None: for ever).

        Returns what the teardowns raised, but raises Ctrl-C.
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
        # What rows say with record_property belongs to the evaluation, which pytest reports.
        row.user_properties = template.user_properties
        row.lane = self
        return row

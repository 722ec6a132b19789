"""Evaluations as pytest items, and rows as items below them."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from doteval.errors import DotEvalError, EvaluationFileError
from doteval.foreach import ForEachSpec, spec_of
from doteval.pytest_runtime import pytest_internals as internals
from doteval.pytest_runtime.marks import MARK, queue_of

if TYPE_CHECKING:
    from doteval.pytest_runtime.row_context import Lane

FILE_PATTERN = "eval_*.py"
FUNCTION_PREFIX = "eval_"
CLASS_PREFIX = "Eval"

# Frames shown of the error behind one of ours, counted from where it was raised.
_FRAMES = 4

_EXCLUSIVE = frozenset(
    {
        "capfd",
        "capfdbinary",
        "caplog",
        "capsys",
        "capsysbinary",
        "capteesys",
        "monkeypatch",
        "recwarn",
    }
)


class EvaluationItem(pytest.Function):
    """An evaluation: one eval function with one set of parameters.

    Its set-up loads what is wider than a row and leaves function-scoped fixtures to the rows. What
    it does when pytest runs it is set by `evaluate`.
    """

    evaluate: Callable[[EvaluationItem], None] | None = None
    loading = False

    # Asked for several times a row, and pytest looks the function up each time.
    @functools.cached_property
    def spec(self) -> ForEachSpec:
        spec = spec_of(self.obj)
        assert spec is not None
        return spec

    @property
    def evaluation_name(self) -> str:
        """The function with its class and parameters: ``EvalA::eval_b[gpt-large]``."""
        classes = [node.name for node in self.listchain() if isinstance(node, pytest.Class)]
        return "::".join([*classes, self.name])

    @property
    def evaluation_path(self) -> str:
        """The file below the root directory, with forward slashes."""
        try:
            return self.path.relative_to(self.config.rootpath).as_posix()
        except ValueError:
            return self.path.as_posix()

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.obj)

    def wide_fixture_names(self) -> list[str]:
        """The fixtures of this evaluation that rows share, in the order in which pytest loads them."""
        definitions = internals.fixture_info(self).name2fixturedefs
        return [
            name
            for name in self.fixturenames
            if name in definitions
            and not any(
                internals.is_per_row(definition, self) and not internals.is_constant(definition)
                for definition in definitions[name]
            )
        ]

    def exclusive_fixture_names(self) -> list[str]:
        """The fixtures of pytest that change the whole process, so that only one row at a time can use them."""
        definitions = internals.fixture_info(self).name2fixturedefs
        return [
            name
            for name in self.fixturenames
            if name in _EXCLUSIVE and any(internals.is_pytests(each) for each in definitions.get(name, ()))
        ]

    def has_row_fixtures(self) -> bool:
        """Whether a row has fixtures of its own, or `request`, through which it may ask for some."""
        wide = set(self.wide_fixture_names())
        return isinstance(self.parent, pytest.Class) or any(name not in wide for name in self.fixturenames)

    def setup(self) -> None:
        internals.renew_request(self)
        self.load(self.wide_fixture_names())

    def load(self, names: Iterable[str]) -> None:
        """Set up fixtures by name. Raises whatever they raise."""
        self.loading = True
        try:
            for name in names:
                self.funcargs[name] = self._request.getfixturevalue(name)
        finally:
            self.loading = False

    def runtest(self) -> None:
        assert self.evaluate is not None, "an evaluation is run by pytest_plugin or a worker process"
        self.evaluate(self)

    def repr_failure(self, excinfo: Any) -> Any:  # type: ignore[override]
        error = excinfo.value
        if not isinstance(error, DotEvalError):
            return super().repr_failure(excinfo)
        # Our own errors say what to do; where in doteval they were raised is of no use.
        cause = error.__cause__
        if cause is None:
            return str(error)
        frames = traceback.format_exception(type(cause), cause, cause.__traceback__, limit=-_FRAMES)
        return f"{error}\n\n{''.join(frames).rstrip()}"

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        path, line, _ = super().reportinfo()
        return path, line, self.evaluation_name


class RowItem(pytest.Function):
    """One row: holds its function-scoped fixtures, and what tears them down again."""

    row_finalizers: list[Callable[[], object]]
    lane: Lane

    def _initrequest(self) -> None:
        super()._initrequest()
        self.row_finalizers = []


def evaluation_items(
    collector: pytest.Module | pytest.Class,
    name: str,
    obj: object,
    found: pytest.Item | pytest.Collector | list[pytest.Item | pytest.Collector] | None,
) -> Any:
    """What pytest should collect for a name: evaluations in place of functions that `@foreach` marked.

    `found` is what pytest and other plugins would collect.
    """
    if inspect.isclass(obj):
        if found is None and name.startswith(CLASS_PREFIX) and _has_evaluations(obj):
            return pytest.Class.from_parent(collector, name=name, obj=obj)
        return found
    function = getattr(obj, "__func__", obj)
    if not name.startswith(FUNCTION_PREFIX) or spec_of(function) is None:
        return found
    items = [_as_evaluation(collector, item) for item in internals.generate_functions(collector, name, function)]
    try:
        for item in items:
            queue_of(item)
    except EvaluationFileError as error:
        raise collector.CollectError(str(error)) from None
    return items


def is_evaluation_file(path: Path) -> bool:
    return fnmatch.fnmatch(path.name, FILE_PATTERN)


def _has_evaluations(obj: type) -> bool:
    return any(name.startswith(FUNCTION_PREFIX) and spec_of(getattr(obj, name, None)) is not None for name in dir(obj))


def _as_evaluation(collector: pytest.Module | pytest.Class, function: pytest.Function) -> EvaluationItem:
    settings: dict[str, Any] = {"name": function.name, "originalname": function.originalname}
    if hasattr(function, "callspec"):
        settings["callspec"] = function.callspec
        settings["keywords"] = {function.callspec.id: True}
    item: EvaluationItem = EvaluationItem.from_parent(
        collector, fixtureinfo=internals.fixture_info(function), **settings
    )
    item.add_marker(MARK)
    return item

"""Evaluations as pytest items: how they are collected, and which queue their mark names."""

from __future__ import annotations

import fnmatch
import functools
import inspect
import os
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from doteval.core.queues_and_devices import check_queue
from doteval.core.wording import plain
from doteval.errors import DotEvalError, EvaluationFileError, StoreError, UsageError
from doteval.foreach import ForEachSpec, spec_of
from doteval.pytest_runtime import pytest_internals as internals

FILE_PATTERN = "eval_*.py"
FUNCTION_PREFIX = "eval_"
CLASS_PREFIX = "Eval"
MARK = "doteval"

_MARK_ARGUMENTS = ("batch", "queue")

# Frames shown of an error that caused a DotEvalError, counted from where it was raised.
_FRAMES = 4

# Fixtures of pytest that change the whole process.
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

    Its set-up loads the fixtures that rows share and leaves function-scoped ones to the rows. `evaluate` is called
    when pytest runs the item.
    """

    evaluate: Callable[[EvaluationItem], None] | None = None
    loading = False

    def _keep_obj(self, value: object) -> None:
        """Keep the author's function: plugins such as pytest-run-parallel put one in its place that returns nothing."""

    obj = pytest.Function.obj.setter(_keep_obj)  # type: ignore[attr-defined] # a property

    # Read several times a row, and pytest looks the function up each time.
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
        """The path of the file below the root directory, with forward slashes."""
        try:
            return self.path.relative_to(self.config.rootpath).as_posix()
        except ValueError:
            return self.path.as_posix()

    @property
    def is_async(self) -> bool:
        """Whether the eval function is a coroutine function."""
        return inspect.iscoroutinefunction(self.obj)

    def wide_fixture_names(self) -> list[str]:
        """The fixtures that the rows of this evaluation share, in the order in which pytest loads them."""
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
        """The requested fixtures that change the whole process, so that only one row at a time can use them."""
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
        __tracebackhide__ = True
        internals.renew_request(self)
        internals.raise_missing_fixture(self)
        self.load(self.wide_fixture_names())

    def load(self, names: Iterable[str]) -> None:
        """Set up fixtures by name. Raises what they raise."""
        __tracebackhide__ = True
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
        # A DotEvalError says what to do; the place in doteval that raised it does not help the user.
        cause = error.__cause__
        # What the driver of a store says is in the message; its frames are none of the user's.
        if cause is None or isinstance(error, StoreError):
            return plain(error.with_section())
        frames = traceback.format_exception(type(cause), cause, cause.__traceback__, limit=-_FRAMES)
        return plain(f"{error.with_section()}\n\n{''.join(frames).rstrip()}")

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        path, line, _ = super().reportinfo()
        return path, line, self.evaluation_name


def evaluation_items(
    collector: pytest.Module | pytest.Class,
    name: str,
    obj: object,
    found: pytest.Item | pytest.Collector | list[pytest.Item | pytest.Collector] | None,
) -> Any:
    """What pytest should collect for a name: evaluations in place of functions that `@foreach` decorates.

    `found`: what pytest and other plugins would collect.

    Raises CollectError if a `doteval` mark cannot be used.
    """
    if inspect.isclass(obj):
        if found is None and name.startswith(CLASS_PREFIX) and _has_evaluations(obj):
            return pytest.Class.from_parent(collector, name=name, obj=obj)
        return found
    function = getattr(obj, "__func__", obj)
    if spec_of(function) is None:
        return found
    # dotevals took decorated functions of any name that pytest collects: as plain tests they would lack their columns.
    if not name.startswith(FUNCTION_PREFIX) and not collector.funcnamefilter(name):
        return found
    items = [_as_evaluation(collector, item) for item in internals.generate_functions(collector, name, function)]
    try:
        for item in items:
            queue_of(item)
            batch_of(item)
    except EvaluationFileError as error:
        raise collector.CollectError(str(error)) from None
    return items


def is_evaluation_file(path: Path) -> bool:
    """Whether the file's name is that of a file with evaluations."""
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


def queue_of(item: EvaluationItem) -> str | None:
    """The queue that the nearest `doteval` mark names: of parameters, function, class, module. None if none does.

    Raises EvaluationFileError if a mark has unknown arguments or its queue has no valid name.
    """
    for mark in _marks(item):
        unknown = [*map(repr, mark.args), *(name for name in mark.kwargs if name not in _MARK_ARGUMENTS)]
        if unknown:
            raise _wrong_mark(item, f"it does not take {', '.join(unknown)}", f"It takes {', '.join(_MARK_ARGUMENTS)}.")
        if "queue" in mark.kwargs:
            try:
                return check_queue(mark.kwargs["queue"])
            except UsageError as error:
                raise _wrong_mark(item, error.message, error.remedy) from None
    return None


def batch_of(item: EvaluationItem) -> bool | None:
    """Whether the nearest `doteval` mark that says so wants the calls of rows sent in batches; None if none says so.

    Raises EvaluationFileError if it says neither True nor False.
    """
    for mark in _marks(item):
        if "batch" in mark.kwargs:
            wanted = mark.kwargs["batch"]
            if not isinstance(wanted, bool):
                raise _wrong_mark(item, f"batch is {wanted!r}", "Give batch=True or batch=False.")
            return wanted
    return None


def served_items(items: Sequence[EvaluationItem], queues: Collection[str]) -> list[EvaluationItem]:
    """The evaluations whose rows a worker process that serves `queues` has to expect.

    These are the ones whose mark names one of the queues. Evaluations without a queue go where a submission sends
    them, which may be any queue that no mark names.
    """
    named = [queue_of(item) for item in items]
    takes_others = any(queue not in named for queue in queues)
    return [
        item for item, queue in zip(items, named, strict=True) if (takes_others if queue is None else queue in queues)
    ]


def _marks(item: EvaluationItem) -> Iterator[pytest.Mark]:
    # pytest puts the marks of parameters after those of the function.
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        yield from (mark for mark in callspec.marks if mark.name == MARK)
    yield from item.iter_markers(MARK)


def _wrong_mark(item: EvaluationItem, what: str, remedy: str | None) -> EvaluationFileError:
    return EvaluationFileError(
        f"the mark {MARK} of {item.evaluation_path}::{item.evaluation_name} cannot be used: {what}", remedy=remedy
    )

"""What a metric is, how it gets its name, and how stored names become metrics again."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec

from doteval.core.plugins import Plugins
from doteval.errors import NotFoundError
from doteval.metrics.intervals import Interval

Parameters = ParamSpec("Parameters")

Metric = Callable[[Sequence[Any]], Any]
"""What a metric's factory returns: a function of all values of a score. After `@metric` it also has a `name`."""

plugins = Plugins("doteval.metrics", "metric")

# Names of this package: a user's metric of the same name is told apart by its module.
_PACKAGE = "doteval.metrics."
_built_in: set[str] = set()


@dataclass(frozen=True, slots=True)
class Calculation:
    """A metric's function with what else is known of it.

    `interval` gives the 95% interval for the same scores. `average` says that the metric is the mean
    of the scores as numbers, so that samples of one row may be averaged first. `per_row` says that
    the function takes one sequence for each row, with the scores of the row's samples.
    """

    value: Metric
    interval: Callable[[Sequence[Any]], Interval | None] | None = None
    average: bool = False
    per_row: bool = False


@dataclass(frozen=True)
class NamedMetric:
    """A metric: call it with the values of a score. `name` is how the store knows it."""

    name: str
    calculation: Calculation = field(repr=False)

    def __call__(self, scores: Sequence[Any]) -> Any:
        return self.calculation.value(scores)

    # As a function has it, and as earlier releases of doteval gave it.
    @property
    def __name__(self) -> str:
        return self.name.partition("(")[0].rpartition(".")[2]


class MetricFactory(Generic[Parameters]):
    """What `@metric` makes of a function: call it, with the metric's settings if it has any."""

    __name__: str

    def __init__(self, function: Callable[Parameters, Metric | Calculation], name: str) -> None:
        functools.update_wrapper(self, function)
        self.name = name
        self._function = function

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> NamedMetric:
        made = self._function(*args, **kwargs)
        calculation = made if isinstance(made, Calculation) else Calculation(made)
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        settings = ", ".join(f"{name}={value!r}" for name, value in bound.arguments.items())
        return NamedMetric(f"{self.name}({settings})" if settings else self.name, calculation)

    def __repr__(self) -> str:
        return f"<metric {self.name}>"


def metric(function: Callable[Parameters, Metric | Calculation]) -> MetricFactory[Parameters]:
    """Make a metric of a function that returns the function that calculates it.

    ::

        @metric
        def share_above(threshold: float = 0.5) -> Metric:
            def calculate(scores):
                return sum(score > threshold for score in scores) / len(scores)

            return calculate

    `calculate` gets all values of a score, at least one, and returns a number. The metric's name is
    the function's, with the settings that it was made with: ``share_above(threshold=0.9)``. The store
    keeps only the name. It becomes a metric again where the function is defined in the same process,
    or where a package announces it under the entry point group ``doteval.metrics``. A metric that has
    the name of a built-in one is known as ``module.name``.
    """
    name = function.__name__
    module = function.__module__
    if module.startswith(_PACKAGE):
        _built_in.add(name)
    elif name in _built_in:
        name = f"{module}.{name}"
    factory = MetricFactory(function, name)
    plugins.register(name, factory)
    return factory


def register(name: str, made: Any) -> None:
    """Give a metric, or a factory of metrics, a name in this process."""
    plugins.register(name, made)


def available() -> tuple[str, ...]:
    """The names of all metrics: built in, defined in this process, announced by packages."""
    return plugins.names()


def resolve(name: str) -> NamedMetric:
    """The metric of a stored name.

    Raises NotFoundError if nothing here goes by that name, UsageError if a package that announces it
    cannot be imported.
    """
    bare, parenthesis, _ = name.partition("(")
    if bare not in plugins:
        raise NotFoundError(
            f"metric {name} is not installed",
            remedy="It is known where its evaluation file is loaded, or where a package announces it under the "
            "entry point group doteval.metrics.",
        )
    made = plugins.get(bare)
    if isinstance(made, MetricFactory):
        settings = _settings(name) if parenthesis else {}
        try:
            found = made(**settings)
        except TypeError as error:
            raise NotFoundError(f"metric {name} takes other settings now") from error
        return NamedMetric(name, found.calculation)
    if isinstance(made, NamedMetric):
        return NamedMetric(name, made.calculation)
    return NamedMetric(name, Calculation(made))


def as_metric(given: Any) -> Any:
    """A metric as an evaluator may be given it: made, or a factory still to be called, or a name."""
    return given() if isinstance(given, MetricFactory) else given


def _settings(name: str) -> dict[str, Any]:
    try:
        call = ast.parse(name, mode="eval").body
        if isinstance(call, ast.Call) and not call.args:
            return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise NotFoundError(f"metric {name} has settings that cannot be read back") from error
    raise NotFoundError(f"metric {name} has settings that cannot be read back")

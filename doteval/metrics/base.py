"""What a metric is: a named function of all values of a score, made by a factory."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, ParamSpec

from doteval.metrics.intervals import Interval

Parameters = ParamSpec("Parameters")

Metric = Callable[[Sequence[Any]], Any]
"""What a factory returns: a function of all values of a score. What `metric` makes of it has a `name` too."""


@dataclass(frozen=True, slots=True)
class Calculation:
    """The function of a metric, with what the summary has to know about it.

    `interval` gives the 95% interval for the same scores. `average` says that the metric is the mean of the
    scores as numbers, so that the samples of one row may be averaged first. `per_row` says that the function
    takes one sequence for each row, with the scores of the row's samples. `failed_as_false` says that the function
    is given False for each failed row; otherwise failed rows are left out, which suits scores that are labels or pairs.
    `better` says which values are good, for comparisons; those of a metric of spread are neither.

    >>> from doteval.metrics import metric
    >>> @metric
    ... def longest():
    ...     return Calculation(lambda texts: max(map(len, texts)), failed_as_false=False)
    >>> longest()(["a", "abc"])
    3
    """

    value: Metric
    interval: Callable[[Sequence[Any]], Interval | None] | None = None
    average: bool = False
    per_row: bool = False
    failed_as_false: bool = True
    better: Literal["higher", "lower", "neither"] = "higher"


@dataclass(frozen=True)
class NamedMetric:
    """A metric: call it with the values of a score. The store keeps it as its `name`.

    >>> from doteval.metrics import accuracy
    >>> accuracy()([True, False])
    0.5
    """

    name: str
    calculation: Calculation = field(repr=False)

    def __call__(self, scores: Sequence[Any]) -> Any:
        return self.calculation.value(scores)

    # doteval 0.22 gave metrics the name of their function, and user code reads it.
    @property
    def __name__(self) -> str:
        return self.name.partition("(")[0].rpartition(".")[2]


class MetricFactory(Generic[Parameters]):
    """What `@metric` makes of a function. Call it, with the metric's settings if there are any, to get the metric."""

    __name__: str

    def __init__(self, function: Callable[Parameters, Metric | Calculation], name: str) -> None:
        functools.update_wrapper(self, function)
        self.name = name
        self._function = function
        code = getattr(function, "__code__", None)
        # The path of the file that defines it, empty if that is not known.
        self.file: str = "" if code is None else code.co_filename.replace("\\", "/")

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> NamedMetric:
        made = self._function(*args, **kwargs)
        calculation = made if isinstance(made, Calculation) else Calculation(made)
        if not args and not kwargs:
            return NamedMetric(self.name, calculation)
        bound = inspect.signature(self._function).bind(*args, **kwargs)
        settings = ", ".join(f"{name}={value!r}" for name, value in bound.arguments.items())
        return NamedMetric(f"{self.name}({settings})", calculation)

    def __repr__(self) -> str:
        return f"<metric {self.name}>"


def as_metric(given: Any) -> Any:
    """The metric that an evaluator was given: a factory is called without settings, anything else is returned.

    >>> from doteval.metrics import accuracy
    >>> as_metric(accuracy)([True, False]), as_metric(accuracy())([True, False])
    (0.5, 0.5)
    """
    return given() if isinstance(given, MetricFactory) else given

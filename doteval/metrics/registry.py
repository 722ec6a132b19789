"""Metrics by name: `@metric` names a function, and `resolve` turns a stored name into the metric again."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from typing import Any

from doteval.core.plugins import Plugins
from doteval.errors import NotFoundError
from doteval.metrics.base import Calculation, Metric, MetricFactory, NamedMetric, Parameters, as_metric

__all__ = [
    "MetricRegistry",
    "available",
    "metric",
    "register",
    "registry",
    "resolve",
]

plugins = Plugins("doteval.metrics", "metric")

# The names of the metrics defined in this package. A user's metric of the same name is known as `module.name`.
_PACKAGE = "doteval.metrics."
_built_in: set[str] = set()
# Each metric that files of the user define, by name and module: two evaluation files may have a metric of one name.
_defined: dict[str, dict[str, MetricFactory[Any]]] = {}


def metric(function: Callable[Parameters, Metric | Calculation]) -> MetricFactory[Parameters]:
    """Make a metric of a function that returns the function that calculates it.

    >>> @metric
    ... def share_above(threshold: float = 0.5) -> Metric:
    ...     def calculate(scores):
    ...         return sum(score > threshold for score in scores) / len(scores)
    ...
    ...     return calculate
    >>> share_above(threshold=0.9)([0.8, 0.95])
    0.5

    `calculate` gets all values of a score, at least one, and returns a number. The metric has the name of the
    function, followed by the settings it was made with: ``share_above(threshold=0.9)``. The store keeps only this
    name. `resolve` finds the metric again in processes that have loaded the file which defines it, or if an
    installed package announces it under the entry point group ``doteval.metrics``. A metric with the name of a
    built-in one is called ``module.name``.
    """
    name = function.__name__
    module = function.__module__
    if module.startswith(_PACKAGE):
        _built_in.add(name)
    elif name in _built_in:
        name = f"{module}.{name}"
    factory = MetricFactory(function, name)
    plugins.register(name, factory)
    # A module that is loaded again, or a cell of a notebook that runs again, replaces its metric.
    _defined.setdefault(name, {})[module] = factory
    return factory


def register(name: str, made: Any) -> None:
    """Give a metric, or a factory of metrics, a name in this process.

    >>> register("smallest", min)
    >>> resolve("smallest")([3, 1, 2])
    1
    """
    plugins.register(name, made)


def available() -> tuple[str, ...]:
    """The names of all metrics, sorted: built in, defined in this process, or announced by installed packages.

    >>> "accuracy" in available()
    True
    """
    return plugins.names()


def resolve(name: str, files: Collection[str] = ()) -> NamedMetric:
    """The metric with a stored name.

    files: paths of the files that the evaluation consists of. Where several files of this process define a metric of
        this name, it is the one that these files define.

    >>> resolve("accuracy")([True, True, False, False])
    0.5

    Raises NotFoundError if no metric has this name, if it is not clear which of several it is, or if its settings have
    changed; UsageError if the package that announces it cannot be imported.
    """
    bare, parenthesis, _ = name.partition("(")
    if bare not in plugins:
        raise NotFoundError(
            f"metric {name} is not installed",
            remedy="Load the evaluation file that defines it, or install a package that announces it under the "
            "entry point group doteval.metrics.",
        )
    made = plugins.get(bare)
    if made in _defined.get(bare, {}).values():
        made = _definition(bare, files)
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


def _definition(name: str, files: Collection[str]) -> MetricFactory[Any]:
    """The definition of a metric that the given files contain, or the only one there is."""
    defined = list(_defined[name].values())
    if len(defined) > 1:
        ends = tuple(f"/{path}" for path in files)
        defined = [each for each in defined if f"/{each.file}".endswith(ends)]
    if len(defined) != 1:
        raise NotFoundError(
            f"metric {name} is defined in several modules: {', '.join(sorted(_defined[name]))}",
            remedy="Give each a name of its own, or define it in the evaluation file.",
        )
    return defined[0]


def _settings(name: str) -> dict[str, Any]:
    try:
        call = ast.parse(name, mode="eval").body
        if isinstance(call, ast.Call) and not call.args:
            return {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise NotFoundError(f"metric {name} has settings that cannot be read back") from error
    raise NotFoundError(f"metric {name} has settings that cannot be read back")


class MetricRegistry:
    """The metrics by name, as files of earlier releases read them: ``from doteval.metrics import registry``.

    ``registry["accuracy"]`` is the metric without settings. Names can be tested with ``in`` and iterated over.

    >>> "accuracy" in registry, registry["accuracy"]([True, False])
    (True, 0.5)
    """

    def register(self, name: str, metric: Any) -> None:
        """Give a metric, or a factory of metrics, a name in this process.

        >>> registry.register("largest", max)
        >>> registry["largest"]([1, 3, 2])
        3
        """
        register(name, metric)

    def get(self, name: str) -> Any:
        """The metric or factory with this name, None if there is none.

        >>> registry.get("accuracy")
        <metric accuracy>
        """
        return plugins.get(name) if name in plugins else None

    def list_metrics(self) -> list[str]:
        """The names of all metrics, sorted.

        >>> "accuracy" in registry.list_metrics()
        True
        """
        return list(available())

    def keys(self) -> tuple[str, ...]:
        """The names of all metrics, sorted, as of a dictionary.

        >>> "accuracy" in registry.keys()
        True
        """
        return available()

    def __getitem__(self, name: str) -> Any:
        """The metric with this name. Raises KeyError: there is none."""
        if name not in plugins:
            raise KeyError(name)
        return as_metric(plugins.get(name))

    def __contains__(self, name: object) -> bool:
        return name in plugins

    def __iter__(self) -> Iterator[str]:
        return iter(available())

    def __len__(self) -> int:
        return len(available())

    def __repr__(self) -> str:
        return "MetricRegistry()"


registry = MetricRegistry()
"""The metrics that this process knows, by name."""

"""`@evaluator`: a function that judges one row, made to return a `Score`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar, cast, overload

from doteval.core.json_codec import encode
from doteval.core.plugins import Plugins
from doteval.core.results import Score
from doteval.errors import UnstorableValueError, UsageError
from doteval.metrics import accuracy, as_metric

AsyncFunction = Callable[..., Coroutine[Any, Any, Any]]
AsyncEvaluator = Callable[..., Coroutine[Any, Any, Score]]
Evaluator = Callable[..., Score]
Judge = TypeVar("Judge", bound=Callable[..., Any])


class Decorator(Protocol):
    """What ``evaluator(metrics=...)`` gives: an async function becomes an async evaluator."""

    @overload
    def __call__(self, function: AsyncFunction, /) -> AsyncEvaluator: ...
    @overload
    def __call__(self, function: Callable[..., Any], /) -> Evaluator: ...


plugins = Plugins("doteval.evaluators", "evaluator")

_SIMPLE = (str, int, float, bool, type(None))


@overload
def evaluator(function: AsyncFunction, /) -> AsyncEvaluator: ...
@overload
def evaluator(function: Callable[..., Any], /) -> Evaluator: ...
@overload
def evaluator(
    function: None = None, /, *, metrics: Any = ...
) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...


def evaluator(function: Callable[..., Any] | None = None, /, *, metrics: Any = None) -> Any:
    """Make an evaluator of a function, sync or async, that returns the value of a score.

    The evaluator returns a `Score` that is named like the function, or as the call's ``name=`` says,
    and keeps the call's arguments as its metadata. `metrics` is a metric, its name, or several of
    them; without it, ``accuracy()``. A function may return a `Score` itself, another evaluator's for
    one: its metadata is added to the arguments, and its metrics stand if no `metrics` are given here.

    Works bare (``@evaluator``), called (``@evaluator()``), and on methods. Raises UsageError if the
    function has a parameter called `name`.
    """
    if function is not None:
        return _evaluator(function, None)
    chosen = None if metrics is None else _metrics(metrics)
    return lambda function: _evaluator(function, chosen)


def _metrics(given: Any) -> tuple[Any, ...]:
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    return tuple(as_metric(one) for one in several)


def _evaluator(function: Callable[..., Any], metrics: tuple[Any, ...] | None) -> Callable[..., Any]:
    signature = inspect.signature(function)
    if "name" in signature.parameters:
        raise UsageError(
            f"the evaluator {function.__qualname__} has a parameter called 'name'",
            remedy="Rename it: every evaluator takes name=, which names its score.",
        )
    function_name: str = getattr(function, "__name__", type(function).__name__)

    default = (accuracy(),)

    def score(value: Any, name: str | None, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Score:
        metadata = _arguments(signature, args, kwargs)
        if isinstance(value, Score):
            chosen = default if metrics is None else metrics
            if metrics is None and value.metrics:
                chosen = tuple(value.metrics)
            return Score(name or function_name, _plain(value.value), chosen, {**metadata, **value.metadata})
        return Score(name or function_name, _plain(value), default if metrics is None else metrics, metadata)

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def judge_async(*args: Any, name: str | None = None, **kwargs: Any) -> Score:
            return score(await function(*args, **kwargs), name, args, kwargs)

        return _named(judge_async, signature)

    @functools.wraps(function)
    def judge(*args: Any, name: str | None = None, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        if inspect.isawaitable(value):
            # A plain function in front of an async one: what it returns is still to come.
            return _score_later(value, lambda found: score(found, name, args, kwargs))
        return score(value, name, args, kwargs)

    return _named(judge, signature)


async def _score_later(value: Awaitable[Any], score: Callable[[Any], Score]) -> Score:
    return score(await value)


def _named(judge: Judge, signature: inspect.Signature) -> Judge:
    parameters = list(signature.parameters.values())
    name = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    before = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    after = parameters[len(before) :]
    judge.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*before, name, *after], return_annotation=Score
    )
    return judge


def _arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = signature.bind(*args, **kwargs).arguments
    return {name: _keepable(value) for name, value in given.items() if name != "self"}


def _keepable(value: Any) -> Any:
    # Arguments are kept to explain a score. One that has no stored form must not fail the row.
    if type(value) in _SIMPLE:
        return value
    try:
        encode(value)
    except UnstorableValueError:
        return f"<{type(value).__qualname__}>"
    return value


def _plain(value: Any) -> Any:
    # numpy's scalars as Python's, so that True is True wherever the score is looked at.
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def register(name: str, made: Callable[..., Any]) -> None:
    """Give an evaluator a name in this process: ``from doteval.evaluators import NAME`` finds it."""
    plugins.register(name, made)


def available() -> tuple[str, ...]:
    """The names of all evaluators: built in, registered, announced by packages."""
    return plugins.names()


def find(name: str) -> Evaluator:
    """The evaluator of that name.

    Raises NotFoundError with the nearest names, or UsageError if its package cannot be imported.
    """
    return cast("Evaluator", plugins.get(name))

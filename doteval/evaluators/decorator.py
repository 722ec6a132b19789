"""The decorator `evaluator` makes a function that judges one row return a `Score`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast, overload

from doteval.core.json_codec import encode
from doteval.core.plugins import Plugins
from doteval.core.results import Score
from doteval.errors import UnstorableValueError, UsageError
from doteval.metrics import accuracy, as_metric

Parameters = ParamSpec("Parameters")
Others = ParamSpec("Others")
Instance = TypeVar("Instance", contravariant=True)
Evaluator = Callable[..., Score]
Judge = TypeVar("Judge", bound=Callable[..., Any])


class EvaluatorFunction(Protocol[Parameters]):
    """What `evaluator` makes of a function: it takes the same arguments, and ``name=``, and returns a `Score`."""

    __name__: str

    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Score: ...

    # Type checkers have no way to say "these parameters, and a keyword": with ``name=`` they do not check the others.
    @overload
    def __call__(self, *args: Any, name: str | None, **kwargs: Any) -> Score: ...

    def __get__(
        self: EvaluatorFunction[Concatenate[Instance, Others]], instance: Instance, owner: type | None = None, /
    ) -> EvaluatorFunction[Others]: ...


class AsyncEvaluatorFunction(Protocol[Parameters]):
    """What `evaluator` makes of an async function: as `EvaluatorFunction`, to be awaited."""

    __name__: str

    @overload
    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Coroutine[Any, Any, Score]: ...

    @overload
    def __call__(self, *args: Any, name: str | None, **kwargs: Any) -> Coroutine[Any, Any, Score]: ...

    def __get__(
        self: AsyncEvaluatorFunction[Concatenate[Instance, Others]], instance: Instance, owner: type | None = None, /
    ) -> AsyncEvaluatorFunction[Others]: ...


class Decorator(Protocol):
    """What ``evaluator(metrics=...)`` returns. It makes an async evaluator of an async function."""

    @overload
    def __call__(
        self, function: Callable[Parameters, Coroutine[Any, Any, Any]], /
    ) -> AsyncEvaluatorFunction[Parameters]: ...
    @overload
    def __call__(self, function: Callable[Parameters, Any], /) -> EvaluatorFunction[Parameters]: ...


plugins = Plugins("doteval.evaluators", "evaluator")

_SIMPLE = (str, int, float, bool, type(None))


@overload
def evaluator(function: Callable[Parameters, Coroutine[Any, Any, Any]], /) -> AsyncEvaluatorFunction[Parameters]: ...
@overload
def evaluator(function: Callable[Parameters, Any], /) -> EvaluatorFunction[Parameters]: ...
@overload
def evaluator(function: None = None, /, *, metrics: Any = ...) -> Decorator: ...


def evaluator(function: Callable[..., Any] | None = None, /, *, metrics: Any = None) -> Any:
    """Make an evaluator of a function, sync or async, that returns the value of a score.

    The evaluator returns a `Score` with the name of the function, or with that given as ``name=``. Its metadata are
    the arguments of the call. `metrics` is a metric, the name of one, or several of these; by default
    ``accuracy()``. The function may also return a `Score`, such as that of another evaluator: its metadata are
    added to the arguments, and its metrics are kept if none are given here.

    The decorator works bare (``@evaluator``), called (``@evaluator()``), and on methods.

    >>> @evaluator
    ... def is_short(text):
    ...     return len(text) < 10
    >>> is_short("hello").value
    True

    Raises UsageError if the function has a parameter called `name` that is not None by default.
    """
    if function is not None:
        return _evaluator(function, None)
    chosen = None if metrics is None else as_metrics(metrics)
    return lambda function: _evaluator(function, chosen)


def as_metrics(given: Any) -> tuple[Any, ...]:
    """The metrics that were given: one, the name of one, or several of these."""
    several = given if isinstance(given, Iterable) and not isinstance(given, str) else (given,)
    return tuple(as_metric(one) for one in several)


def _evaluator(function: Callable[..., Any], metrics: tuple[Any, ...] | None) -> Callable[..., Any]:
    signature = inspect.signature(function)
    # Authors may declare the parameter that every evaluator has: the function is never given a value for it.
    own = signature.parameters.get("name")
    if own is not None and own.default is not None:
        raise UsageError(
            f"the evaluator {function.__qualname__} has a parameter called 'name'",
            remedy="Rename it, or make it None by default: every evaluator takes name=, the name of its score.",
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
            # A plain function that calls an async one: its value has to be awaited.
            return _score_later(value, lambda found: score(found, name, args, kwargs))
        return score(value, name, args, kwargs)

    return _named(judge, signature)


async def _score_later(value: Awaitable[Any], score: Callable[[Any], Score]) -> Score:
    return score(await value)


def _named(judge: Judge, signature: inspect.Signature) -> Judge:
    parameters = [parameter for parameter in signature.parameters.values() if parameter.name != "name"]
    name = inspect.Parameter("name", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
    before = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    after = parameters[len(before) :]
    judge.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*before, name, *after], return_annotation=Score
    )
    return judge


def _arguments(signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    given = signature.bind(*args, **kwargs).arguments
    return {name: _storable(value) for name, value in given.items() if name != "self"}


def _storable(value: Any) -> Any:
    # Arguments are kept to explain a score. One that cannot be stored must not make the row fail.
    if type(value) in _SIMPLE:
        return value
    try:
        encode(value)
    except UnstorableValueError:
        return f"<{type(value).__qualname__}>"
    return value


def _plain(value: Any) -> Any:
    # numpy scalars become Python values: `numpy.True_ is True` is false.
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def register(name: str, made: Callable[..., Any]) -> None:
    """Give an evaluator a name in this process, so that ``from doteval.evaluators import NAME`` finds it.

    >>> register("is_short", evaluator(lambda text: len(text) < 10))
    >>> from doteval.evaluators import is_short
    >>> is_short("hello").value
    True
    """
    plugins.register(name, made)


def available() -> tuple[str, ...]:
    """The names of all evaluators, sorted: built in, registered here, or announced by installed packages.

    >>> "exact_match" in available()
    True
    """
    return plugins.names()


def find(name: str) -> Evaluator:
    """The evaluator with that name.

    Raises NotFoundError, which suggests similar names, if there is none; UsageError if its package cannot be imported.

    >>> find("exact_match")("Paris", "Paris").value
    True
    """
    return cast("Evaluator", plugins.get(name))

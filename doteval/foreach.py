"""The decorators `@foreach` and `@batch` make a function an evaluation over the rows of a dataset.

The decorated function stays a plain function that can be called with values. Only its signature changes: it hides
the parameters that a row fills, so that pytest takes only the others for fixtures.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from doteval.concurrency import as_strategy
from doteval.errors import ColumnError

__all__ = ["BatchDecorator", "ForEach", "batch", "foreach"]

Function = TypeVar("Function", bound=Callable[..., Any])

_ATTRIBUTE = "__foreach__"

# Rows that an evaluation of `@batch` is given at a time, if it does not say.
ROWS_OF_A_BATCH = 32


@dataclass(frozen=True, slots=True)
class ForEachSpec:
    """The arguments of `@foreach` or `@batch`.

    `columns`: the parameters that a row fills. `dataset`: anything that `doteval.datasets.open_dataset` takes.
    `retries`, `concurrency`, `storage`: override the command line for this evaluation. `batch_size`: the most rows of a
    call, None if the function takes one row and not lists.
    """

    columns: tuple[str, ...]
    dataset: Any = field(repr=False)
    retries: Any = None
    concurrency: Any = None
    storage: Any = None
    batch_size: int | None = None


def spec_of(function: object) -> ForEachSpec | None:
    """The spec of a function decorated with `@foreach`, else None."""
    spec = getattr(function, _ATTRIBUTE, None)
    return spec if isinstance(spec, ForEachSpec) else None


def parse_columns(column_spec: str) -> tuple[str, ...]:
    """Split a column spec into column names.

    Raises ColumnError for an empty spec, a name that is no identifier, or a name given twice.

    >>> parse_columns("text, expected")
    ('text', 'expected')
    """
    columns = tuple(part.strip() for part in column_spec.split(","))
    for column in columns:
        if not column.isidentifier():
            raise ColumnError(
                f"{column!r} in the column spec {column_spec!r} is not a parameter name",
                remedy='Name the columns as the function names its parameters: @foreach("text,expected", ...).',
            )
    if len(set(columns)) < len(columns):
        raise ColumnError(f"the column spec {column_spec!r} names a column twice")
    return columns


class SharedSettings:
    """Makes decorators that have these settings where they are given none of their own."""

    def __init__(self, *, retries: Any = None, concurrency: Any = None, storage: Any = None) -> None:
        self._retries = retries
        self._concurrency = concurrency
        self._storage = storage

    def _decorator(
        self,
        columns: tuple[str, ...],
        dataset: Any,
        retries: Any,
        concurrency: Any,
        storage: Any,
        batch_size: int | None = None,
    ) -> Callable[[Function], Function]:
        spec = ForEachSpec(
            columns,
            dataset,
            self._retries if retries is None else retries,
            self._concurrency if concurrency is None else concurrency,
            self._storage if storage is None else storage,
            batch_size,
        )
        return lambda function: _mark(function, spec)


class ForEach(SharedSettings):
    """Makes `@foreach` decorators that share settings.

    After ``foreach = ForEach(retries=..., concurrency=..., storage=...)``, use ``@foreach(column_spec, dataset)``, or
    ``@foreach.NAME(split)`` for a registered dataset, which names its columns itself.

    >>> foreach = ForEach(retries=3, concurrency=20)
    >>> @foreach("text", ["good", "bad"])
    ... def eval_text(text):
    ...     return text.upper()
    >>> eval_text("good")
    'GOOD'
    """

    def __call__(
        self,
        column_spec: str,
        dataset: Any,
        *,
        retries: Any = None,
        concurrency: Any = None,
        storage: Any = None,
    ) -> Callable[[Function], Function]:
        """Make a function an evaluation: it runs once for each row of `dataset`, whose columns fill its parameters.

        `retries`: how often connection errors are retried, or a tenacity object. `concurrency`: how many rows are
        in flight, or a strategy of `doteval.concurrency`. `storage`: the URL of the evaluation's own result store.

        Raises ColumnError if the function has no parameter for a column, UsageError if a setting is invalid.

        >>> @foreach("text,expected", [("good", "positive")])
        ... def eval_sentiment(text, expected):
        ...     return text, expected
        >>> eval_sentiment("bad", "negative")
        ('bad', 'negative')
        """
        return self._decorator(parse_columns(column_spec), dataset, retries, concurrency, storage)

    def __getattr__(self, name: str) -> Callable[..., Callable[[Function], Function]]:
        if name.startswith("_"):
            raise AttributeError(name)
        from doteval.datasets import registered

        dataset_class = registered(name)

        def with_registered(*args: Any, **kwargs: Any) -> Callable[[Function], Function]:
            settings = {key: kwargs.pop(key, None) for key in ("retries", "concurrency", "storage")}
            dataset = dataset_class(*args, **kwargs)
            return self._decorator(tuple(dataset.columns), dataset, **settings)

        return with_registered


foreach = ForEach()


class BatchDecorator(SharedSettings):
    """Makes `@batch` decorators that share settings: ``batch = Batch(retries=..., concurrency=..., storage=...)``.

    It is `doteval.Batch`. The strategy `doteval.concurrency.Batch` is something else: it groups rows that the function
    still takes one by one.

    >>> from doteval import Batch
    >>> batch = Batch(concurrency=4)
    >>> @batch("text,expected", [("good", "positive")], batch_size=16)
    ... def eval_sentiment(text, expected):
    ...     return [(one, other) for one, other in zip(text, expected)]
    >>> eval_sentiment(["bad"], ["negative"])
    [('bad', 'negative')]
    """

    def __call__(
        self,
        column_spec: str,
        dataset: Any,
        batch_size: int | None = None,
        *,
        retries: Any = None,
        concurrency: Any = None,
        storage: Any = None,
    ) -> Callable[[Function], Function]:
        """Make a function an evaluation that takes up to `batch_size` rows at a time, 32 by default.

        Each column arrives as a list, and the function returns as many results, in the same order. Function-scoped
        fixtures are made for each batch, and `concurrency` counts batches.

        Raises ColumnError if the function has no parameter for a column, UsageError if a setting is invalid.

        >>> @batch("question,answer", [("2 + 2", "4"), ("3 + 3", "6")], batch_size=2)
        ... def eval_sums(question, answer):
        ...     return list(zip(question, answer))
        >>> eval_sums(["1 + 1"], ["2"])
        [('1 + 1', '2')]
        """
        size = ROWS_OF_A_BATCH if batch_size is None else batch_size
        if size < 1:
            raise ColumnError(f"batch_size must be at least 1, not {size}")
        return self._decorator(parse_columns(column_spec), dataset, retries, concurrency, storage, size)


batch = BatchDecorator()
"""The decorator `@batch` without shared settings: see `Batch`."""


def _mark(function: Function, spec: ForEachSpec) -> Function:
    if spec.concurrency is not None:
        as_strategy(spec.concurrency)
    # A copy, so that one function can serve two evaluations with different datasets.
    marked = _copy(function)
    signature = inspect.signature(function)
    parameters = signature.parameters.values()
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    missing = [column for column in spec.columns if column not in signature.parameters]
    if missing and not takes_any:
        raise ColumnError(
            f"{function.__qualname__}({', '.join(signature.parameters)}) has no parameter for the "
            f"column{'s' if len(missing) > 1 else ''} {', '.join(map(repr, missing))}",
            remedy="Give the function a parameter of that name, or change the column spec.",
        )
    # pytest takes every parameter in the signature for a fixture.
    marked.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[parameter for parameter in parameters if parameter.name not in spec.columns]
    )
    setattr(marked, _ATTRIBUTE, spec)
    return marked


def _copy(function: Function) -> Function:
    if isinstance(function, types.FunctionType):
        copy = types.FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        copy.__kwdefaults__ = function.__kwdefaults__
        return functools.update_wrapper(copy, function)  # type: ignore[return-value]
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return call_async  # type: ignore[return-value]

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]

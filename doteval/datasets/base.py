"""The interface of datasets, for authors of datasets and for the code that reads rows."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from doteval.core.error_leaves import leaves
from doteval.core.wording import counted
from doteval.errors import DatasetError, DotEvalError


class Dataset(ABC):
    """Rows, and what is known about them before they are read.

    `open_dataset` returns a Dataset, and packages may derive their datasets from it. Such a class sets `columns`, in
    the order of the values that `__iter__` yields, and may set `name`, `splits` and `num_rows`;
    ``@foreach.NAME(split)`` makes an instance. A class need not derive from Dataset: `columns` and `__iter__` suffice.

    `columns` is None if they are known only from the rows; `num_rows` and `length` are None if the number is known only
    after reading. If `reiterable` is False, the rows can be read only once.

    >>> class Squares(Dataset):
    ...     columns = ("n", "square")
    ...
    ...     def __init__(self, split):
    ...         self.num_rows = {"test": 3, "train": 100}[split]
    ...
    ...     def __iter__(self):
    ...         return ((n, n * n) for n in range(self.num_rows))
    >>> list(Squares("test").rows())
    [(0, 0), (1, 1), (2, 4)]
    """

    name: str = ""
    splits: Sequence[str] = ()
    columns: Sequence[str] | None = None
    num_rows: int | None = None
    reiterable: bool = True

    # How messages refer to the dataset.
    description: str = "the dataset"

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield the rows: tuples or lists by position, dicts by column, or the values of the only column."""

    # Cached properties, unlike properties, can be set by derived classes.
    @functools.cached_property
    def length(self) -> int | None:
        """The number of rows; None if it is known only after reading."""
        return self.num_rows

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """A value that changes with the content of the dataset; None if computing it would be expensive."""
        return None

    def rows(self) -> Iterator[Any]:
        """Yield all rows, one at a time.

        Raises DatasetError if reading fails. The message says after how many rows; the cause is the original error.
        """
        count = 0
        try:
            for row in self:
                yield row
                count += 1
        except DotEvalError:
            raise
        except Exception as error:
            raise DatasetError(
                f"{self.description} raised {type(leaves(error)[0]).__name__} after {counted(count, 'row')}",
                remedy="The error's cause says where.",
            ) from error


class IterableDataset(Dataset):
    """The rows of an iterable: a list, a generator, a registered dataset, a Hugging Face dataset.

    `by_name`: whether the rows have their values by the names in `columns`. The rows of other datasets may be tuples,
    which fill the parameters by position, whatever the columns' names. `again` makes a new iterable, if `source` can
    be iterated only once.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        description: str,
        columns: Sequence[str] | None = None,
        by_name: bool = False,
        length: int | None = None,
        fingerprint: str | None = None,
        again: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        self.columns = columns
        self.by_name = by_name
        self.num_rows = length
        self.description = description
        self.fingerprint = fingerprint
        self._source: Iterable[Any] | None = source
        self._again = again
        self._once = isinstance(source, Iterator)
        self.reiterable = not self._once or again is not None

    def __iter__(self) -> Iterator[Any]:
        source = self._source
        if self._once:
            self._source = None
        if source is not None:
            return iter(source)
        if self._again is None:
            raise DatasetError(
                f"{self.description} can be read only once, and has been read already",
                remedy="Pass the function that makes it instead of its result: @foreach(columns, rows), not rows().",
            )
        return iter(self._again())

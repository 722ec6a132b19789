"""What a dataset is: to those who write one, and to those who read its rows."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from doteval.errors import DatasetError, DotEvalError


class Dataset(ABC):
    """Rows, and what is known of them before they are read.

    What `open_dataset` returns, and the base of datasets that packages bring. Those set `columns`, in
    the order of what `__iter__` yields, and may set `name`, `splits` and `num_rows`;
    ``@foreach.NAME(split)`` makes an instance. Deriving from it is not needed: any class with
    `columns` and `__iter__` will do.

    `columns` is None where only the rows tell, `num_rows` and `length` where only reading tells. With
    `reiterable` False, the rows can be read once.
    """

    name: str = ""
    splits: Sequence[str] = ()
    columns: Sequence[str] | None = None
    num_rows: int | None = None
    reiterable: bool = True

    # What messages call it.
    description: str = "the dataset"

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield the rows: tuples or lists by position, dicts by column, or the values of one column."""

    # Cached properties and not properties, so that a class that derives from this one may set them.
    @functools.cached_property
    def length(self) -> int | None:
        """The number of rows, None if only reading tells."""
        return self.num_rows

    @functools.cached_property
    def fingerprint(self) -> str | None:
        """What tells this dataset from another version of itself, where that is cheap to know; else None."""
        return None

    def rows(self) -> Iterator[Any]:
        """All rows, one at a time.

        Raises DatasetError if the dataset cannot be read, after how many rows, with the original
        error as its cause.
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
                f"{self.description} raised {type(error).__name__} after {count} rows",
                remedy="The error's cause says where.",
            ) from error


class IterableDataset(Dataset):
    """Rows of any iterable: a list, a generator, a registered dataset, a Hugging Face dataset.

    `again` makes the iterable anew, for one that can be iterated only once.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        description: str,
        columns: Sequence[str] | None = None,
        length: int | None = None,
        fingerprint: str | None = None,
        again: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        self.columns = columns
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
                f"{self.description} can be read only once, and has been",
                remedy="Pass the function that makes it, not what it returned: @foreach(columns, rows), not rows().",
            )
        return iter(self._again())

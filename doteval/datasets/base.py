"""What a dataset is: to those who write one, and to those who read its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar

from doteval.errors import DatasetError, DotEvalError


class Dataset(ABC):
    """A base for datasets that packages bring, and that `register` gives a name.

    Deriving from it is not needed: any class with these attributes and `__iter__` will do.
    `columns` name what `__iter__` yields, in this order. ``@foreach.NAME(split)`` makes an instance.
    """

    name: ClassVar[str]
    splits: ClassVar[Sequence[str]] = ()
    columns: Sequence[str] = ()
    num_rows: int | None = None

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield one tuple for each row."""


class OpenDataset:
    """A dataset whose rows can be read, whatever it was made from.

    `columns` are known for files with a header and for datasets that name them, else None. `length`
    is the number of rows, None if only reading tells. With `reiterable` False, `rows()` works once.
    """

    columns: tuple[str, ...] | None = None
    length: int | None = None
    reiterable: bool = True

    # What messages call it: a file's name, or a type.
    description: str = "the dataset"

    @property
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
            for row in self._rows():
                yield row
                count += 1
        except DotEvalError:
            raise
        except Exception as error:
            raise DatasetError(
                f"{self.description} raised {type(error).__name__} after {count} rows",
                remedy="See the cause above; the rows before it are not affected.",
            ) from error

    def _rows(self) -> Iterable[Any]:
        raise NotImplementedError


class IterableDataset(OpenDataset):
    """Rows of any iterable: a list, a generator, a registered dataset, a Hugging Face dataset.

    `again` makes the iterable anew, for one that can be iterated only once.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        description: str,
        columns: tuple[str, ...] | None = None,
        length: int | None = None,
        fingerprint: str | None = None,
        again: Callable[[], Iterable[Any]] | None = None,
    ) -> None:
        self.columns = columns
        self.length = length
        self.description = description
        self._source: Iterable[Any] | None = source
        self._fingerprint = fingerprint
        self._again = again
        self._once = isinstance(source, Iterator)
        self.reiterable = not self._once or again is not None

    @property
    def fingerprint(self) -> str | None:
        return self._fingerprint

    def _rows(self) -> Iterable[Any]:
        source = self._source
        if self._once:
            self._source = None
        if source is not None:
            return source
        if self._again is None:
            raise DatasetError(
                f"{self.description} can be read only once, and has been",
                remedy="Pass the function that makes it, not what it returned: @foreach(columns, rows), not rows().",
            )
        return self._again()

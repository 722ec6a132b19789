"""`open_dataset` makes a dataset of whatever `@foreach` was given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from doteval.core.error_leaves import leaves
from doteval.core.plugins import did_you_mean
from doteval.datasets.base import Dataset, IterableDataset
from doteval.datasets.files import FileDataset, open_file
from doteval.errors import ColumnError, DatasetError

# A function may return a function that returns a dataset. Deeper nesting than this is a mistake.
_MOST_NESTED_FUNCTIONS = 8


def open_dataset(source: Any, *, columns: tuple[str, ...] | None = None, base: Path | None = None) -> Dataset:
    """Make a dataset of anything that `@foreach` takes.

    `source` may be:

    - a sequence, or a generator or other iterator, which can be read only once
    - a function that returns a dataset; it is called now, and again if the rows are read a second time
    - the path of a .csv, .tsv, .jsonl, .json or .parquet file, relative to `base` or the current directory
    - a registered dataset, or any object with `columns` and `__iter__`
    - a Hugging Face dataset, streaming or not; a pandas or polars data frame

    `columns` are checked against the columns of the dataset if it names them and its rows are dicts or from a file.

    >>> list(open_dataset([("2 + 2", "4")], columns=("question", "answer")).rows())
    [('2 + 2', '4')]

    Raises DatasetError if `source` is none of these or cannot be read; ColumnError, which suggests similar names, if
    the dataset lacks a column.
    """
    opened = _open(source, base, 0)
    if columns and opened.columns is not None and _by_name(source, opened):
        missing = [column for column in columns if column not in opened.columns]
        if missing:
            raise ColumnError(
                f"{opened.description} has no column {', '.join(map(repr, missing))}",
                remedy=did_you_mean(missing[0], opened.columns),
            )
    return opened


def _open(source: Any, base: Path | None, depth: int) -> Dataset:
    if isinstance(source, (IterableDataset, FileDataset)):
        return source
    if isinstance(source, (str, Path)):
        return open_file(Path(source), base)
    if isinstance(source, (bytes, bytearray, Mapping)):
        raise _not_a_dataset(source)
    if _is_frame(source):
        return _open_frame(source)
    if _is_hugging_face(source):
        return _open_hugging_face(source)
    if isinstance(source, Iterable):
        return _open_iterable(source)
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return _open_indexed(source)
    if hasattr(source, "__aiter__"):
        raise DatasetError(
            f"the dataset is a {type(source).__name__}, which is asynchronous",
            remedy="Use a plain generator, or read the rows into a list first.",
        )
    if callable(source) and depth < _MOST_NESTED_FUNCTIONS:
        return _open_callable(source, base, depth)
    raise _not_a_dataset(source)


def _open_iterable(source: Iterable[Any]) -> Dataset:
    names = getattr(source, "columns", None)
    fingerprint = getattr(source, "fingerprint", None)
    return IterableDataset(
        source,
        description=_describe(source),
        columns=None if names is None or callable(names) else tuple(map(str, names)),
        length=_length(source),
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
    )


def _open_indexed(source: Any) -> Dataset:
    # PyTorch datasets have no __iter__, and end at their length, not with an IndexError.
    class Rows:
        def __iter__(self) -> Iterator[Any]:
            return (source[index] for index in range(len(source)))

    return IterableDataset(Rows(), description=_describe(source), length=len(source))


def _open_callable(source: Any, base: Path | None, depth: int) -> Dataset:
    name = getattr(source, "__qualname__", type(source).__name__)
    try:
        made = source()
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"the dataset function {name} raised {type(leaves(error)[0]).__name__}") from error
    if inspect.iscoroutine(made):
        made.close()
        raise DatasetError(
            f"the dataset function {name} is asynchronous",
            remedy="Use a plain function or generator, or read the rows into a list first.",
        )
    opened = _open(made, base, depth + 1)
    if opened.reiterable:
        return opened
    opened.description = f"the dataset function {name}"
    return IterableDataset(
        opened.rows(),
        description=opened.description,
        columns=opened.columns,
        length=opened.length,
        again=lambda: _open(source(), base, depth + 1).rows(),
    )


def _is_frame(source: Any) -> bool:
    return hasattr(source, "columns") and (hasattr(source, "itertuples") or hasattr(source, "iter_rows"))


def _open_frame(source: Any) -> Dataset:
    columns = tuple(map(str, source.columns))

    class Rows:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            pandas = hasattr(source, "itertuples")
            tuples = source.itertuples(index=False, name=None) if pandas else source.iter_rows()
            return (dict(zip(columns, values, strict=True)) for values in tuples)

    return IterableDataset(Rows(), description="the data frame", columns=columns, length=len(source))


def _is_hugging_face(source: Any) -> bool:
    # Recognized without importing the library, which takes seconds.
    return hasattr(source, "column_names") and hasattr(source, "features") and isinstance(source, Iterable)


def _open_hugging_face(source: Any) -> Dataset:
    names = source.column_names
    fingerprint = getattr(source, "_fingerprint", None)
    return IterableDataset(
        source,
        description=_describe(source),
        columns=tuple(names) if isinstance(names, (list, tuple)) else None,
        length=_length(source),
        fingerprint=f"huggingface:{fingerprint}" if isinstance(fingerprint, str) else None,
    )


def _by_name(source: Any, opened: Dataset) -> bool:
    # The rows of other datasets may be tuples, which fill the parameters by position, whatever the columns' names.
    return not isinstance(opened, IterableDataset) or _is_frame(source) or _is_hugging_face(source)


def _length(source: Any) -> int | None:
    length = getattr(source, "num_rows", None)
    if isinstance(length, int):
        return length
    try:
        return len(source)
    except TypeError:
        return None


def _describe(source: Any) -> str:
    name = getattr(source, "name", None)
    return f"the dataset {name}" if isinstance(name, str) and name else f"the dataset ({type(source).__name__})"


def _not_a_dataset(source: Any) -> DatasetError:
    kind = type(source).__name__
    if isinstance(source, Mapping):
        splits = [str(key) for key, value in source.items() if _is_hugging_face(value)]
        if splits:
            return DatasetError(
                f"the dataset is a {kind} of the splits {', '.join(splits)}",
                remedy=f"Choose one: dataset[{splits[0]!r}].",
            )
        return DatasetError(
            f"the dataset is a {kind}, which does not tell rows from columns",
            remedy="Pass a list with one dict or tuple for each row.",
        )
    return DatasetError(
        f"a {kind} is not a dataset",
        remedy="Pass a list, a generator, a function that returns one, a data frame, or the path of a file.",
    )

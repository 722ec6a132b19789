"""`open_dataset` makes a dataset of whatever `@foreach` was given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from doteval.core.error_leaves import leaves
from doteval.core.plugins import did_you_mean
from doteval.datasets.base import Dataset, IterableDataset
from doteval.datasets.file_dataset import FileDataset
from doteval.datasets.files import open_file
from doteval.datasets.hub import HubAddress, is_hub_address, load_from_hub
from doteval.errors import ColumnError, DatasetError

# A function may return a function that returns a dataset. Deeper nesting than this is a mistake.
_MOST_NESTED_FUNCTIONS = 8


def open_dataset(source: Any, *, columns: tuple[str, ...] | None = None, base: Path | None = None) -> Dataset:
    """Make a dataset of anything that `@foreach` takes.

    `source` may be:

    - a sequence, or a generator or other iterator, which can be read only once
    - a function that returns a dataset; it is called now, and again if the rows are read a second time
    - the path of a .csv, .tsv, .jsonl, .json or .parquet file, relative to `base` or the current directory; all but
      Parquet files may be compressed by gzip (.csv.gz)
    - the address of a dataset of the Hugging Face hub, ``hf://OWNER/NAME?split=SPLIT`` (`doteval.datasets.hub`)
    - a registered dataset, or any object with `columns` and `__iter__`
    - a Hugging Face dataset, streaming or not; a pandas or polars data frame

    `columns` are those that the evaluation names; no others are read or decoded where the dataset allows it. They are
    checked against the columns of the dataset if it names them and its rows are dicts or from a file.

    >>> list(open_dataset([("2 + 2", "4")], columns=("question", "answer")).rows())
    [('2 + 2', '4')]

    Raises DatasetError if `source` is none of these, cannot be read, or has a column twice; ColumnError, which
    suggests similar names, if the dataset lacks a column.
    """
    opened = _Opener(columns, base).open(source)
    if opened.by_name and opened.columns is not None:
        _check_columns(opened.description, opened.columns, opened.columns if columns is None else columns)
    return opened


def _check_columns(description: str, known: Sequence[str], wanted: Sequence[str]) -> None:
    missing = [column for column in wanted if column not in known]
    if missing:
        raise ColumnError(
            f"{description} has no column {', '.join(map(repr, missing))}", remedy=did_you_mean(missing[0], known)
        )
    for column in wanted:
        places = [str(place) for place, name in enumerate(known, start=1) if name == column]
        if len(places) > 1:
            raise DatasetError(
                f"{description} has the column {column!r} twice: columns {' and '.join(places)} of {len(known)}",
                remedy="Rename or remove one of them.",
            )


class _Opener:
    """Opens datasets of any kind. `columns`: those that rows must have, all of them for None."""

    def __init__(self, columns: tuple[str, ...] | None, base: Path | None) -> None:
        self._columns = columns
        self._base = base

    def open(self, source: Any, depth: int = 0) -> IterableDataset | FileDataset:
        if isinstance(source, (IterableDataset, FileDataset)):
            return source
        if isinstance(source, (str, Path)) and is_hub_address(source):
            return self._open_address(str(source))
        if isinstance(source, (str, Path)):
            return open_file(source, self._base, self._columns)
        if isinstance(source, (bytes, bytearray, Mapping)):
            raise _not_a_dataset(source)
        if _is_frame(source):
            return _open_frame(source, self._columns)
        if _is_hugging_face(source):
            return _open_hugging_face(source, self._columns)
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
            return self._open_callable(source, depth)
        raise _not_a_dataset(source)

    def _open_address(self, address: str) -> IterableDataset:
        loaded = load_from_hub(HubAddress.parse(address))
        opened = _open_hugging_face(loaded.rows, self._columns)
        opened.description = loaded.description
        opened.fingerprint = loaded.fingerprint
        if opened.num_rows is None:
            opened.num_rows = loaded.num_rows
        return opened

    def _open_callable(self, source: Any, depth: int) -> IterableDataset | FileDataset:
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
        opened = self.open(made, depth + 1)
        if opened.reiterable:
            return opened
        opened.description = f"the dataset function {name}"
        return IterableDataset(
            opened.rows(),
            description=opened.description,
            columns=opened.columns,
            by_name=opened.by_name,
            length=opened.length,
            again=lambda: self.open(source(), depth + 1).rows(),
        )


def _open_iterable(source: Iterable[Any]) -> IterableDataset:
    # The fields of a structured NumPy array.
    fields = getattr(getattr(source, "dtype", None), "names", None)
    names = fields or getattr(source, "columns", None)
    fingerprint = getattr(source, "fingerprint", None)
    return IterableDataset(
        source,
        description=_describe(source),
        columns=None if names is None or callable(names) else tuple(map(str, names)),
        by_name=fields is not None,
        length=_length(source),
        fingerprint=fingerprint if isinstance(fingerprint, str) else None,
    )


def _open_indexed(source: Any) -> IterableDataset:
    # PyTorch datasets have no __iter__, and end at their length, not with an IndexError.
    class Rows:
        def __iter__(self) -> Iterator[Any]:
            return (source[index] for index in range(len(source)))

    return IterableDataset(Rows(), description=_describe(source), length=len(source))


def _is_frame(source: Any) -> bool:
    return hasattr(source, "columns") and (hasattr(source, "itertuples") or hasattr(source, "iter_rows"))


def _open_frame(source: Any, wanted: Sequence[str] | None) -> IterableDataset:
    columns = tuple(map(str, source.columns))
    # Of pandas, by position: names need not be text there, and several columns may have one.
    places = [place for place, column in enumerate(columns) if wanted is None or column in wanted]
    names = [columns[place] for place in places]

    class Rows:
        def __iter__(self) -> Iterator[dict[str, Any]]:
            if hasattr(source, "itertuples"):
                values = zip(*(source.iloc[:, place] for place in places), strict=True)
            else:
                values = source.select(names).iter_rows()
            return (dict(zip(names, each, strict=True)) for each in values)

    return IterableDataset(Rows(), description="the data frame", columns=columns, by_name=True, length=len(source))


def _is_hugging_face(source: Any) -> bool:
    # Recognized without importing the library, which takes seconds.
    return hasattr(source, "column_names") and hasattr(source, "features") and isinstance(source, Iterable)


def _open_hugging_face(source: Any, wanted: Sequence[str] | None) -> IterableDataset:
    names = source.column_names
    # A transform makes other columns of those that are stored, and needs them all.
    transformed = (getattr(source, "format", None) or {}).get("type") == "custom"
    columns = tuple(names) if isinstance(names, (list, tuple)) and not transformed else None
    fingerprint = getattr(source, "_fingerprint", None)
    rows = source
    if columns and wanted and set(wanted) < set(columns) and hasattr(source, "select_columns"):
        # Images and audio of other columns are not decoded then.
        rows = source.select_columns(list(wanted))
    return IterableDataset(
        rows,
        description=_describe(source),
        columns=columns,
        by_name=True,
        length=_length(source),
        fingerprint=f"huggingface:{fingerprint}" if isinstance(fingerprint, str) else None,
    )


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

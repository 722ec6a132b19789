"""Datasets in files: CSV, JSON lines, JSON, Parquet."""

from __future__ import annotations

import csv
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from doteval.datasets.base import Dataset
from doteval.errors import DatasetError

# Rows of a Parquet file that are in memory at a time.
_BATCH_ROWS = 1_024

# A file is hashed in parts of 32 MiB, four at a time, each of which is read in blocks of 1 MiB.
_PART_BYTES = 1 << 25
_HASHERS = 4
_BLOCK_BYTES = 1 << 20

# By default the csv module refuses cells of more than 128 KiB, and responses of models are often longer.
_LONGEST_CELL_BYTES = 2**31 - 1


class FileDataset(Dataset):
    """The rows of a file. The fingerprint is a hash of its content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.description = path.name

    @functools.cached_property
    def fingerprint(self) -> str:
        # Parts are hashed in parallel, so that submitting gigabytes again does not wait for one processor.
        starts = range(0, max(1, self.path.stat().st_size), _PART_BYTES)
        whole = hashlib.blake2b(digest_size=16)
        with ThreadPoolExecutor(_HASHERS) as pool:
            for part in pool.map(self._hash_part, starts):
                whole.update(part)
        return f"blake2b-parts:{whole.hexdigest()}"

    def _hash_part(self, start: int) -> bytes:
        digest = hashlib.blake2b(digest_size=16)
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            left = _PART_BYTES
            while left and (block := file.read(min(_BLOCK_BYTES, left))):
                digest.update(block)
                left -= len(block)
        return digest.digest()

    def _open(self) -> TextIO:
        # utf-8-sig removes the byte order mark that spreadsheets write, which would become part of a column's name.
        return self.path.open(encoding="utf-8-sig", newline="")

    def _broken(self, line: int, problem: str, remedy: str | None = None) -> DatasetError:
        return DatasetError(f"{self.path.name}, line {line}: {problem}", remedy=remedy)


class CsvDataset(FileDataset):
    """The rows of a CSV or TSV file as dicts by column. Values stay text; a short row lacks its last columns."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        self.columns = self._header()

    def _header(self) -> tuple[str, ...]:
        for _, cells in self._cells():
            names = tuple(cell.strip() for cell in cells)
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise self._broken(1, f"the header has the column {twice[0]!r} twice")
            return names
        raise DatasetError(f"{self.path.name} is empty", remedy="Its first line must name the columns.")

    def __iter__(self) -> Iterator[dict[str, str]]:
        columns = self.columns or ()
        lines = self._cells()
        next(lines, None)
        for _, cells in lines:
            yield dict(zip(columns, cells, strict=False))

    def _cells(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_LONGEST_CELL_BYTES)
        with self._open() as file:
            reader = csv.reader(file, delimiter=self._delimiter)
            try:
                for cells in reader:
                    if cells:
                        yield reader.line_num, cells
            except csv.Error as error:
                raise self._broken(reader.line_num, f"not CSV: {error}") from error
            except UnicodeDecodeError:
                raise self._broken(
                    reader.line_num + 1, "the text is not UTF-8", "Save the file with the encoding UTF-8."
                ) from None


class JsonLinesDataset(FileDataset):
    """The rows of a file with one JSON value a line. Empty lines are skipped."""

    def __iter__(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield self._parsed(text, number)

    def _parsed(self, text: bytes, number: int) -> Any:
        # The parser is the standard library's: orjson reads integers beyond 64 bits as floats and refuses NaN.
        # Its errors contain the line, which must not be shown, so they are not chained.
        try:
            return json.loads(text.decode())
        except json.JSONDecodeError as error:
            problem = f"not JSON: {error.msg} at column {error.colno}"
        except UnicodeDecodeError:
            problem = "the text is not UTF-8"
        except RecursionError:
            problem = "nested too deeply"
        raise self._broken(number, problem, "Every line must be one JSON value.")


class JsonDataset(FileDataset):
    """The rows of a file that is one JSON array. The whole file is read into memory."""

    @functools.cached_property
    def _array(self) -> list[Any]:
        try:
            value = json.loads(self.path.read_bytes().decode("utf-8-sig"))
        except json.JSONDecodeError as error:
            raise self._broken(error.lineno, f"not JSON: {error.msg} at column {error.colno}") from None
        except UnicodeDecodeError:
            raise DatasetError(f"{self.path.name} is not UTF-8", remedy="Save it with the encoding UTF-8.") from None
        except RecursionError:
            raise DatasetError(f"{self.path.name} is nested too deeply") from None
        if not isinstance(value, list):
            kind = "an object" if isinstance(value, Mapping) else "one value"
            raise DatasetError(
                f"{self.path.name} holds {kind}, not an array of rows",
                remedy="Write an array of objects, or one object a line in a .jsonl file.",
            )
        return value

    @functools.cached_property
    def length(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array)


class ParquetDataset(FileDataset):
    """The rows of a Parquet file as dicts by column. Needs pyarrow."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._file() as file:
            self.columns = tuple(file.schema_arrow.names)
            self.num_rows = file.metadata.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._file() as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield from batch.to_pylist()

    def _file(self) -> Any:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError as error:
            raise DatasetError(
                f"{self.path.name}: reading Parquet files needs pyarrow, which is not installed",
                remedy="Install it: pip install pyarrow",
            ) from error
        try:
            return parquet.ParquetFile(self.path)
        except pyarrow.ArrowInvalid as error:
            raise DatasetError(f"{self.path.name} is not a Parquet file") from error


FORMATS: Mapping[str, Callable[[Path], FileDataset]] = {
    ".csv": CsvDataset,
    ".tsv": CsvDataset,
    ".jsonl": JsonLinesDataset,
    ".ndjson": JsonLinesDataset,
    ".json": JsonDataset,
    ".parquet": ParquetDataset,
}


def open_file(path: Path, base: Path | None = None) -> FileDataset:
    """The dataset in a file. A relative path is looked up in `base`, then in the current directory.

    Raises DatasetError if there is no such file, or if its suffix is not one of `FORMATS`.
    """
    make = FORMATS.get(path.suffix.lower())
    if make is None:
        raise DatasetError(
            f"{str(path)!r} is not a dataset: its suffix is not a known format",
            remedy=f"The suffixes are {', '.join(FORMATS)}. Rows can also be passed as a list.",
        )
    path = path.expanduser()
    candidates = [directory / path for directory in (base, Path.cwd()) if directory is not None]
    for candidate in candidates:
        if candidate.is_file():
            return make(candidate)
    looked_up = dict.fromkeys(map(str, candidates))
    raise DatasetError(
        f"there is no file {str(path)!r}",
        remedy=f"Looked for {' and '.join(looked_up)}. Paths are relative to the evaluation file.",
    )

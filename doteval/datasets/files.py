"""`open_file` opens the dataset in a file: CSV, JSON lines, JSON, Parquet."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from doteval.core.redaction import hide_password
from doteval.datasets.csv_files import CsvDataset
from doteval.datasets.file_dataset import FileDataset, format_suffix, is_compressed
from doteval.datasets.json_files import JsonDataset, JsonLinesDataset
from doteval.datasets.parquet_files import ParquetDataset
from doteval.errors import DatasetError

FORMATS: Mapping[str, Callable[[Path, Sequence[str] | None], FileDataset]] = {
    ".csv": CsvDataset,
    ".tsv": CsvDataset,
    ".jsonl": JsonLinesDataset,
    ".ndjson": JsonLinesDataset,
    ".json": JsonDataset,
    ".parquet": ParquetDataset,
}

# A scheme has two letters at least: "c:/" is a drive. A Path has only one slash left of "https://".
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)


def open_file(path: str | Path, base: Path | None = None, wanted: Sequence[str] | None = None) -> FileDataset:
    """The dataset in a file. A relative path is looked up in `base`, then in the current directory.

    `wanted`: the columns that rows must have, all of them for None.

    Raises DatasetError if there is no such file, if the path is an address, or if its suffix is not one of `FORMATS`,
    with or without ``.gz`` after it.
    """
    address = _ADDRESS.match(str(path))
    if address:
        raise _not_downloaded(str(path), address[1].lower())
    path = Path(path)
    make = FORMATS.get(format_suffix(path))
    if make is None:
        raise DatasetError(
            f"{str(path)!r} is not a dataset: its suffix is not a known format",
            remedy=f"The suffixes are {', '.join(FORMATS)}, and these with .gz. Rows can also be passed as a list, a "
            "dataset of the Hugging Face hub as hf://OWNER/NAME?split=SPLIT, a registered one as @foreach.NAME(split).",
        )
    if make is ParquetDataset and is_compressed(path):
        raise DatasetError(
            f"{str(path)!r} is a Parquet file within a gzip file, which cannot be read in parts",
            remedy="Unpack it with gunzip; Parquet files are compressed themselves.",
        )
    path = path.expanduser()
    candidates = [directory / path for directory in (base, Path.cwd()) if directory is not None]
    for candidate in candidates:
        if candidate.is_file():
            return make(candidate, wanted)
    looked_up = dict.fromkeys(map(str, candidates))
    relative_to = "current directory" if base is None else "evaluation file"
    raise DatasetError(
        f"there is no file {str(path)!r}",
        remedy=f"Looked for {' and '.join(looked_up)}. Paths are relative to the {relative_to}.",
    )


def _not_downloaded(address: str, scheme: str) -> DatasetError:
    # The query may hold a signature that opens the file to anybody.
    shown = hide_password(re.sub(":/(?!/)", "://", address, count=1)).partition("?")[0]
    remedies = {
        "file": "Pass the path alone, without file://.",
    }
    return DatasetError(
        f"the dataset {shown!r} is an address, and doteval reads files only",
        remedy=remedies.get(scheme, "Download it first and pass its path, or pass a function that yields its rows."),
    )

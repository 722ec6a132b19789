"""Datasets in Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from doteval.datasets.file_dataset import FileDataset
from doteval.errors import DatasetError

# Rows of a file that are in memory at a time.
_BATCH_ROWS = 1_024


class ParquetDataset(FileDataset):
    """The rows of a Parquet file as dicts by column. Only the columns in `wanted` are read. Needs pyarrow."""

    def __init__(self, path: Path, wanted: Sequence[str] | None = None) -> None:
        super().__init__(path, wanted)
        with self._file() as file:
            self.columns = tuple(file.schema_arrow.names)
            self.num_rows = file.metadata.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        wanted = None if self.wanted is None else list(self.wanted)
        with self._file() as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                # pyarrow also returns the column "a.b" if "a" is asked for.
                yield from (batch if wanted is None else batch.select(wanted)).to_pylist()

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

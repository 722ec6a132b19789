"""Writes records as CSV, JSON lines or Parquet, in memory that does not grow with their number."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from doteval.core.json_codec import encode
from doteval.core.results import Record
from doteval.errors import UsageError

Named = tuple[str, Record]
"""A record with the name of its evaluation."""

# Rows of a Parquet file that are in memory at a time.
_BATCH_ROWS = 1_024

_FIXED = ("evaluation", "row", "key", "sample", "status")
_AFTER = (
    "prompt",
    "model_response",
    "error_type",
    "error_message",
    "requests",
    "prompt_tokens",
    "completion_tokens",
    "cost",
    "started_at",
    "seconds",
    "worker",
)
# The types of these columns, even if no record has a value in them.
_KINDS: Mapping[str, type] = {
    "row": int,
    "sample": int,
    "requests": int,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cost": float,
    "started_at": float,
    "seconds": float,
}


def to_document(evaluation: str, record: Record) -> dict[str, Any]:
    """Everything that is known of a record, as one nested document: a line of the JSON lines format.

    `started_at` is in seconds since 1970 (UTC), `seconds` is the duration. `usage` has one entry for each model.
    """
    row, outcome = record.row, record.outcome
    return {
        "evaluation": evaluation,
        "row": row.index,
        "key": row.key,
        "sample": row.sample,
        "status": outcome.status.value,
        "values": dict(row.values),
        "scores": {score.name: score.value for score in outcome.scores},
        "score_metadata": {score.name: dict(score.metadata) for score in outcome.scores if score.metadata},
        "prompt": outcome.prompt,
        "model_response": outcome.model_response,
        "metadata": dict(outcome.metadata),
        "error": None
        if outcome.error is None
        else {**dataclasses.asdict(outcome.error), "error_class": outcome.error.error_class.value},
        "usage": [dataclasses.asdict(usage) for usage in outcome.usage],
        "started_at": outcome.started_at,
        "seconds": outcome.seconds,
        "worker": record.worker,
    }


def to_cells(evaluation: str, record: Record) -> dict[str, Any]:
    """A record as one line of a table.

    The row's values are in the columns ``row.COLUMN``, the scores in ``score.NAME``; usage is the sum over all
    models. Bools, numbers and text stay as they are, anything else becomes JSON text (`doteval.core.json_codec`).
    """
    row, outcome = record.row, record.outcome
    costs = [usage.cost for usage in outcome.usage if usage.cost is not None]
    cells: dict[str, Any] = {
        "evaluation": evaluation,
        "row": row.index,
        "key": row.key,
        "sample": row.sample,
        "status": outcome.status.value,
        **{f"row.{column}": value for column, value in row.values.items()},
        **{f"score.{score.name}": score.value for score in outcome.scores},
        "prompt": outcome.prompt,
        "model_response": outcome.model_response,
        "error_type": outcome.error.type if outcome.error else None,
        "error_message": outcome.error.message if outcome.error else None,
        "requests": sum(usage.requests for usage in outcome.usage),
        "prompt_tokens": sum(usage.prompt_tokens for usage in outcome.usage),
        "completion_tokens": sum(usage.completion_tokens for usage in outcome.usage),
        "cost": sum(costs) if costs else None,
        "started_at": outcome.started_at,
        "seconds": outcome.seconds,
        "worker": record.worker,
    }
    return {name: _cell(value) for name, value in cells.items()}


def write_jsonl(file: IO[bytes], records: Iterable[Named]) -> int:
    """Write one JSON document a line, as `to_document` makes it. Returns the number of records.

    Values that JSON lacks are encoded by `doteval.core.json_codec`, whose `decode` reads them back.
    """
    count = 0
    for evaluation, record in records:
        file.write(encode(to_document(evaluation, record)).encode() + b"\n")
        count += 1
    return count


def write_csv(file: IO[bytes], records: Iterable[Named]) -> int:
    """Write CSV (RFC 4180, UTF-8) with a header, one line a record as `to_cells` makes it. Returns their number.

    None is an empty cell. The records go to a temporary file first, since the columns are known only after the
    last record.
    """
    with _spooled(records) as spool:
        names = spool.names()
        text = _Lines(file)
        writer = csv.writer(text)
        writer.writerow(names)
        for cells in spool.read():
            writer.writerow([_csv_cell(cells.get(name)) for name in names])
        return spool.count


def write_parquet(file: IO[bytes], records: Iterable[Named]) -> int:
    """Write a Parquet file with the columns of `to_cells`. Returns the number of records.

    A column keeps its type if all of its values are bools, integers or numbers; any other column is text.

    Raises UsageError if pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError(
            "writing Parquet files needs pyarrow, which is not installed", remedy="Install it: pip install pyarrow"
        ) from error
    with _spooled(records) as spool:
        types = {
            bool: pyarrow.bool_(),
            int: pyarrow.int64(),
            float: pyarrow.float64(),
            str: pyarrow.string(),
        }
        kinds = {name: spool.kind(name) for name in spool.names()}
        schema = pyarrow.schema([(name, types[kind]) for name, kind in kinds.items()])
        with parquet.ParquetWriter(file, schema) as writer:
            for batch in _batches(spool.read()):
                columns = {name: [_as_kind(cells.get(name), kind) for cells in batch] for name, kind in kinds.items()}
                writer.write_table(pyarrow.table(columns, schema=schema))
        return spool.count


FORMATS: Mapping[str, Callable[[IO[bytes], Iterable[Named]], int]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
}


def export(records: Iterable[Named], path: Path, format: str | None = None) -> int:  # noqa: A002
    """Write records to a file and return their number.

    `format` is one of `FORMATS`, by default the suffix of the file's name. The file appears when it is complete and
    replaces an existing one.

    Raises UsageError if the format is unknown or the file cannot be written.
    """
    chosen = format or path.suffix.removeprefix(".").lower()
    write = FORMATS.get(chosen)
    if write is None:
        raise UsageError(
            f"{chosen!r} is not an export format"
            if chosen
            else f"the name {path.name!r} does not tell the export format",
            remedy=f"The formats are {', '.join(FORMATS)}.",
        )
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with unfinished.open("wb") as file:
            count = write(file, records)
        unfinished.replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return count


class _Spool:
    """The lines of a table, in a temporary file until all columns are known."""

    def __init__(self, file: IO[bytes]) -> None:
        self.count = 0
        self._file = file
        self._kinds: dict[str, set[type]] = {}

    def add(self, cells: Mapping[str, Any]) -> None:
        for name, value in cells.items():
            self._kinds.setdefault(name, set()).add(type(value))
        self._file.write(json.dumps(cells).encode() + b"\n")
        self.count += 1

    def read(self) -> Iterator[dict[str, Any]]:
        self._file.seek(0)
        return map(json.loads, self._file)

    def names(self) -> list[str]:
        """The columns in order: what identifies the row, its values, its scores, and the rest of its result."""
        values = [name for name in self._kinds if name.startswith("row.")]
        scores = [name for name in self._kinds if name.startswith("score.")]
        return [*_FIXED, *values, *scores, *_AFTER]

    def kind(self, name: str) -> type:
        """The type that holds all values of a column: bool, int, float, or else str."""
        if name in _KINDS:
            return _KINDS[name]
        kinds = self._kinds.get(name, set()) - {type(None)}
        for kind, fits in ((bool, {bool}), (int, {int}), (float, {int, float})):
            if kinds and kinds <= fits:
                return kind
        return str


@contextmanager
def _spooled(records: Iterable[Named]) -> Iterator[_Spool]:
    with tempfile.TemporaryFile() as file:
        spool = _Spool(file)
        for evaluation, record in records:
            spool.add(to_cells(evaluation, record))
        yield spool


class _Lines:
    """A text file for the csv module, which writes UTF-8 to a binary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _batches(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for cells in lines:
        batch.append(cells)
        if len(batch) == _BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch


def _cell(value: Any) -> Any:
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is str:
        # A lone surrogate cannot be encoded as UTF-8. It becomes a question mark, so that the export goes on.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if type(value) is int:
        # Parquet's integers have 64 bits; larger ones become text.
        return value if -(2**63) <= value < 2**63 else str(value)
    return encode(value)


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _as_kind(value: Any, kind: type) -> Any:
    if value is None or kind is not str:
        return value
    return _csv_cell(value)

"""Writes results as CSV, JSON lines, Parquet or Arrow, in memory that does not grow with their number.

A table of results is a number of pages: each maps the names of columns to lists of cells, which are None, bools, ints
of 64 bits, floats, dates with time, and text (`cell` makes them).
"""

from __future__ import annotations

import csv
import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from doteval.analysis.record_documents import label
from doteval.core.json_codec import encode
from doteval.core.process_identity import new_token
from doteval.core.results import Record
from doteval.core.row_labels import label_of
from doteval.errors import UsageError

if TYPE_CHECKING:
    import pyarrow

Page = Mapping[str, Sequence[Any]]
"""Some rows of a table: lists of cells by column, all of one length."""

# A row group of a Parquet file has about so many bytes of memory: small ones are slow to write and to read.
_ROW_GROUP_BYTES = 64_000_000

ARROW_REMEDY = "Install it: pip install 'doteval[parquet]'"

# Text columns of a table have these types even if all cells are None.
_KINDS: Mapping[str, type] = {
    "index": int,
    "sample": int,
    "requests": int,
    "attempts": int,
    "cache_hits": int,
    "prompt_tokens": int,
    "completion_tokens": int,
    "cached_tokens": int,
    "reasoning_tokens": int,
    "cost": float,
    "judge_tokens": int,
    "judge_cost": float,
    "batch_tokens": int,
    "batch_cost": float,
    "started_at": datetime,
    "seconds": float,
}


@dataclass(frozen=True, slots=True)
class CellTable:
    """Results as a table.

    columns: the names of the columns, in order.
    pages: the rows, some at a time. A page may lack columns: their cells are None.
    """

    columns: Sequence[str]
    pages: Iterable[Page]


def cell(value: Any) -> Any:
    """A value as a cell: None, bools, numbers and text stay as they are, anything else becomes JSON text.

    The JSON text is that of `doteval.core.json_codec`, whose `decode` reads it back.

    >>> cell({"a": 1})
    '{"a":1}'
    """
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is str:
        # A lone surrogate cannot be encoded as UTF-8. It becomes a question mark, so that the export goes on.
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if kind is int:
        # Arrow's integers have 64 bits; larger ones become text.
        return value if -(2**63) <= value < 2**63 else str(value)
    return encode(value)


def cells(values: Sequence[Any]) -> Sequence[Any]:
    """`cell` of each value, faster if all of them are texts.

    >>> cells(["a", "b"]), cells(["a", 2**70])
    (['a', 'b'], ['a', '1180591620717411303424'])
    """
    kinds = set(map(type, values))
    if kinds <= {str, type(None)}:
        return values if "".join(filter(None, values)).isascii() else list(map(cell, values))
    return values if kinds <= {bool, float, type(None)} else list(map(cell, values))


def to_document(experiment: str, evaluation: str, record: Record) -> dict[str, Any]:
    """Everything that is known of a record, as one nested document: a line of the JSON lines format.

    `started_at` is in seconds since 1970 (UTC), `seconds` is the duration. `usage` has one entry for each model.
    """
    row, outcome = record.row, record.outcome
    return {
        "experiment": experiment,
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
        "label": label_of(record.labels),
        "labels": [label(each) for each in record.labels],
    }


def write_documents(file: IO[bytes], documents: Iterable[Mapping[str, Any]]) -> int:
    """Write one JSON document a line, and return their number.

    Values that JSON lacks are encoded by `doteval.core.json_codec`, whose `decode` reads them back.
    """
    count = 0
    for document in documents:
        file.write(encode(document).encode() + b"\n")
        count += 1
    return count


def write_jsonl(file: IO[bytes], table: CellTable) -> int:
    """Write one flat JSON object a line, with the columns of the table. Returns the number of rows."""
    count = 0
    for page in table.pages:
        for cells in zip(*_in_order(page, table.columns), strict=True):
            line = dict(zip(table.columns, cells, strict=True))
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
            count += 1
    return count


def write_csv(file: IO[bytes], table: CellTable) -> int:
    """Write CSV (RFC 4180, UTF-8) with a header. None is an empty cell. Returns the number of rows."""
    writer = csv.writer(_Lines(file))
    writer.writerow(table.columns)
    count = 0
    for page in table.pages:
        columns = [[_text(value) for value in column] for column in _in_order(page, table.columns)]
        writer.writerows(zip(*columns, strict=True))
        count += _length(page)
    return count


def write_parquet(file: IO[bytes], table: CellTable) -> int:
    """Write a Parquet file. Returns the number of rows.

    A column keeps its type if all of its cells are bools, integers, numbers or dates; any other column is text.

    Raises UsageError if pyarrow is not installed.
    """
    arrow = import_pyarrow("writing Parquet files")
    with _typed(arrow, table) as (schema, batches):
        return write_batches(file, "parquet", schema, batches)


def write_arrow(file: IO[bytes], table: CellTable) -> int:
    """Write an Arrow IPC file, with the types of `write_parquet`. Returns the number of rows.

    Raises UsageError if pyarrow is not installed.
    """
    arrow = import_pyarrow("writing Arrow files")
    with _typed(arrow, table) as (schema, batches):
        return write_batches(file, "arrow", schema, batches)


def write_batches(file: IO[bytes], format: str, schema: Any, batches: Iterable[Any]) -> int:  # noqa: A002
    """Write record batches of pyarrow as `parquet` or `arrow`. Returns the number of rows."""
    import pyarrow
    from pyarrow import ipc, parquet

    count = 0
    if format == "arrow":
        with ipc.new_file(file, schema) as stream:
            for batch in batches:
                stream.write_batch(batch)
                count += batch.num_rows
        return count
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for group in _row_groups(batches):
            rows = pyarrow.Table.from_batches(group)
            writer.write_table(rows)
            count += rows.num_rows
    return count


def to_arrow(table: CellTable) -> pyarrow.Table:
    """Return the whole table in memory, with the types of `write_parquet`.

    Raises UsageError if pyarrow is not installed.
    """
    arrow = import_pyarrow("a table in memory")
    with _typed(arrow, table) as (schema, batches):
        return arrow.Table.from_batches(list(batches), schema=schema)


FORMATS: Mapping[str, Callable[[IO[bytes], CellTable], int]] = {
    "csv": write_csv,
    "jsonl": write_jsonl,
    "parquet": write_parquet,
    "arrow": write_arrow,
}
"""The function that writes a table, by the name of the format, which is also the suffix of its files."""


def import_pyarrow(what: str) -> Any:
    """Return pyarrow. Raises UsageError if it is not installed: `what` needs it."""
    try:
        import pyarrow
    except ImportError as error:
        raise UsageError(f"{what} needs pyarrow, which is not installed", remedy=ARROW_REMEDY) from error
    return pyarrow


def format_of(path: Path, format: str | None = None) -> str:  # noqa: A002
    """Return the format of a file: the one that is named, or else the suffix of its name.

    Raises UsageError if it is none of `FORMATS`.
    """
    chosen = format or path.suffix.removeprefix(".").lower()
    if chosen not in FORMATS:
        raise UsageError(
            f"{chosen!r} is not an export format"
            if chosen
            else f"the name {path.name!r} does not tell the export format",
            remedy=f"The formats are {', '.join(FORMATS)}.",
        )
    return chosen


@contextmanager
def complete_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears when the block has ended well, and then replaces an existing one.

    What is no file, such as a pipe or ``/dev/null``, is written to, and a link stays one.

    Raises UsageError if it cannot be written.
    """
    target = path.resolve()
    unfinished = target.with_name(f".{target.name}.{new_token()}.unfinished")
    is_special = target.exists() and not target.is_file()
    try:
        with (target if is_special else unfinished).open("wb") as file:
            yield file
        if not is_special:
            unfinished.replace(target)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


class _Lines:
    """A text file for the csv module, which writes UTF-8 to a binary file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, text: str) -> int:
        return self._file.write(text.encode())


def _length(page: Page) -> int:
    return len(next(iter(page.values()), ()))


def _in_order(page: Page, columns: Sequence[str]) -> list[Sequence[Any]]:
    empty = [None] * _length(page)
    return [page.get(name, empty) for name in columns]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, datetime) else str(value)


@contextmanager
def _typed(arrow: Any, table: CellTable) -> Iterator[tuple[Any, Iterator[Any]]]:
    """Give a table's schema, and its rows in batches of that schema.

    The type of a column is known only after its last cell, so the batches go to a temporary file first, each with the
    types of its own cells.
    """
    from pyarrow import ipc

    with tempfile.TemporaryFile() as file:
        kinds: dict[str, set[type]] = {name: set() for name in table.columns}
        ends = []
        for page in table.pages:
            arrays = []
            for name, column in zip(table.columns, _in_order(page, table.columns), strict=True):
                found = _types(name, column)
                kinds[name] |= found
                # Numbers of both kinds wait as text: the column may become text, and then 1 is not to be 1.0.
                kind = str if {int, float} <= found and name not in _KINDS else _kind(name, found)
                arrays.append(_array(arrow, column, kind, found))
            batch = arrow.record_batch(arrays, names=list(table.columns))
            with ipc.new_stream(file, batch.schema) as writer:
                writer.write_batch(batch)
            ends.append(file.tell())
        types = {name: _kind(name, found) for name, found in kinds.items()}
        schema = arrow.schema([(name, _arrow_type(arrow, kind)) for name, kind in types.items()])

        def batches() -> Iterator[Any]:
            file.seek(0)
            for end in ends:
                with ipc.open_stream(file) as reader:
                    batch = reader.read_next_batch()
                file.seek(end)
                columns = [_as_kind(arrow, batch.column(name), kind) for name, kind in types.items()]
                yield arrow.record_batch(columns, schema=schema)

        yield schema, batches()


def _row_groups(batches: Iterable[Any]) -> Iterator[list[Any]]:
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if sum(each.nbytes for each in group) >= _ROW_GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


class _LargeInteger:
    """Stands for integers that a float cannot hold, among the types of a column."""


def _types(name: str, column: Sequence[Any]) -> set[type]:
    types = set(map(type, column))
    if int in types and name not in _KINDS:
        integers = column if types == {int} else [value for value in column if type(value) is int]
        if max(integers) > 2**53 or min(integers) < -(2**53):
            types.add(_LargeInteger)
    return types


def _kind(name: str, kinds: set[type]) -> type:
    """The type that holds all cells of a column: bool, int, float, datetime, or else str."""
    if name in _KINDS:
        return _KINDS[name]
    found = kinds - {type(None)}
    integers: set[type] = {int, _LargeInteger}
    for kind, fits in ((bool, {bool}), (int, integers), (float, {int, float}), (datetime, {datetime})):
        if found and found <= fits:
            return kind
    return str


def _arrow_type(arrow: Any, kind: type) -> Any:
    return {
        bool: arrow.bool_(),
        int: arrow.int64(),
        float: arrow.float64(),
        datetime: arrow.timestamp("us", tz="UTC"),
        str: arrow.large_string(),
    }[kind]


def _array(arrow: Any, column: Sequence[Any], kind: type, types: set[type]) -> Any:
    if types <= {kind, type(None)}:
        return arrow.array(column, _arrow_type(arrow, kind))
    convert = _text if kind is str else kind
    return arrow.array([None if value is None else convert(value) for value in column], _arrow_type(arrow, kind))


def _as_kind(arrow: Any, array: Any, kind: type) -> Any:
    """An array of a batch with the type of the whole column."""
    if array.type == _arrow_type(arrow, kind):
        return array
    column = array.to_pylist()
    return _array(arrow, column, kind, set(map(type, column)))

"""Answers SQL queries over the views of `doteval.store.sql_views` with DuckDB, in bounded memory.

DuckDB asks a view for the columns and the conditions of a query, and gets pages that are read from the store meanwhile:
it neither has the database open nor needs an extension for it, so that a query cannot change the store, and is the same
on SQLite and PostgreSQL. Conditions on experiment, evaluation and index choose what is read at all; the others, and
everything else of the query, are DuckDB's work.
"""

from __future__ import annotations

import datetime
import decimal
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from doteval.core.wording import counted
from doteval.errors import UsageError
from doteval.store.sql_views import VIEWS
from doteval.store.store import Store
from doteval.store.view_schema import Kind, Page, Part, View, parts

if TYPE_CHECKING:
    import pyarrow

REMEDY = "Install it: pip install 'doteval[query]'"

# Sorts, joins and groups that need more go to temporary files. doteval itself, with what Arrow holds, takes as much.
_MEMORY = "200MB"
# Each thread of DuckDB has buffers of its own, and all of them wait for the one that reads the store.
_MOST_THREADS = 4
# Rows in a batch of the answer.
_BATCH_ROWS = 10_000
# Lines of DuckDB's messages that are shown: a list of all functions with this name is longer than the screen.
_SHOWN_LINES = 16
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a query.

    columns: the names of its columns, in order.
    types: DuckDB's names of their types.
    batches: its rows, as record batches of Arrow.
    """

    columns: Sequence[str]
    types: Sequence[str]
    batches: pyarrow.RecordBatchReader
    _explained: Callable[[], AbstractContextManager[None]]

    def limited(self, limit: int = 0) -> Iterator[pyarrow.RecordBatch]:
        """The batches of the first `limit` rows, of all for 0. Raises the errors of `answer`."""
        left = limit
        while True:
            with self._explained():
                batch = next(self.batches, None)
            if batch is None:
                return
            yield batch.slice(0, left) if limit else batch
            left -= batch.num_rows
            if limit and left <= 0:
                return

    def pages(self, limit: int = 0, *, parse_json: bool = False) -> Iterator[list[list[Any]]]:
        """The columns of each batch as values that JSON has: times are texts, maps are dicts.

        parse_json: whether columns of JSON are values, or else texts.
        """
        for batch in self.limited(limit):
            columns = []
            for array, kind in zip(batch.columns, self.types, strict=True):
                values = array.to_pylist(maps_as_pydicts="lossy")
                if kind == "JSON" and parse_json:
                    columns.append([None if value is None else orjson.loads(value) for value in values])
                else:
                    columns.append(list(map(_plain, values)))
            yield columns


@contextmanager
def answer(store: Store, sql: str) -> Iterator[Answer]:
    """Answer a query, whose rows are computed while they are read.

    Raises UsageError: DuckDB is not installed, or the text is no query, or it fails; the message shows where.
    Raises StoreError: the store cannot be read.
    """
    duckdb = _duckdb()
    failures: list[BaseException] = []
    with tempfile.TemporaryDirectory(prefix="doteval-query-") as directory:
        connection = duckdb.connect()
        try:
            with _explained(duckdb, failures):
                _configure(connection, directory)
                _check(duckdb, sql)
                _register(connection, store, failures)
                found = _relation(duckdb, connection, sql)
                if found is None:
                    raise _no_query()
                types = [str(each) for each in found.types]
                yield Answer(
                    found.columns, types, found.to_arrow_reader(_BATCH_ROWS), lambda: _explained(duckdb, failures)
                )
        finally:
            connection.close()


def _plain(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in (str, bool, int):
        return value
    if kind is float:
        return value if math.isfinite(value) else None
    if kind is decimal.Decimal:
        # Sums of integers have 128 bits.
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(_plain(name)): _plain(each) for name, each in value.items()}
    if kind is list:
        return list(map(_plain, value))
    return value.hex() if kind is bytes else str(value)


def _duckdb() -> Any:
    try:
        import duckdb
        import pyarrow.dataset  # noqa: F401 - the views are datasets
    except ImportError as error:
        raise UsageError(f"queries need {error.name}, which is not installed", remedy=REMEDY) from error
    return duckdb


def _configure(connection: Any, directory: str) -> None:
    settings = {
        "memory_limit": f"'{_MEMORY}'",
        "threads": min(_MOST_THREADS, os.cpu_count() or 1),
        "temp_directory": "'{}'".format(directory.replace("'", "''")),
        "TimeZone": "'UTC'",
        # Queries read views, nothing else: no file, no network, no variable of Python.
        "python_enable_replacements": "false",
        "enable_external_access": "false",
        "lock_configuration": "true",
    }
    for name, value in settings.items():
        connection.execute(f"SET {name} = {value}")


def _check(duckdb: Any, sql: str) -> None:
    """Check that the text is one query, without parameters."""
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1:
        raise UsageError(
            f"the text holds {counted(len(statements), 'statement')}, not one query"
            if statements
            else "there is no query",
            remedy=_EXAMPLE,
        )
    if statements[0].type != duckdb.StatementType.SELECT:
        raise _no_query()
    if statements[0].named_parameters:
        raise UsageError("the query has parameters, which nobody gives", remedy="Write their values in the query.")


def _no_query() -> UsageError:
    return UsageError("the statement is no query: the views can only be read", remedy=_EXAMPLE)


@contextmanager
def _explained(duckdb: Any, failures: Sequence[BaseException]) -> Iterator[None]:
    """Turn the errors of DuckDB into a `UsageError`, and those of reading the store into what they were."""
    try:
        yield
    except BaseException as error:
        if failures:
            raise failures[0] from None
        if isinstance(error, duckdb.Error):
            raise _failed(str(error)) from error
        raise


def _failed(message: str) -> UsageError:
    # What DuckDB says may quote contents of rows.
    return UsageError(f"the query fails: {_shown(message)}", remedy=_HINT, logged="a query fails")


def _shown(message: str) -> str:
    """The beginning of a message, and its end, which shows the place in the query."""
    lines = [line[:_SHOWN_CHARACTERS] for line in message.strip().splitlines() if line.strip()]
    marked = next((place for place, line in enumerate(lines) if line.startswith("LINE ")), len(lines))
    rest = lines[marked : marked + 4]
    head = lines[: max(1, min(marked, _SHOWN_LINES - len(rest)))]
    more = ["    ..."] if len(head) < marked else []
    return "\n".join([*head, *more, *rest])


def _relation(duckdb: Any, connection: Any, sql: str) -> Any:
    try:
        return connection.sql(sql)
    except duckdb.Error:
        # This message lacks the place in the query, and that of a plan has it, one line further down.
        try:
            connection.execute(f"EXPLAIN\n{sql}")
        except duckdb.Error as error:
            raise _failed(_LINE.sub(_line_before, str(error))) from error
        raise


_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)


def _line_before(found: re.Match[str]) -> str:
    return f"LINE {int(found[1]) - 1}:".ljust(len(found[0]))


def _register(connection: Any, store: Store, failures: list[BaseException]) -> None:
    all_parts = parts(store.evaluations.all())
    for view in VIEWS:
        connection.register(view.name, _dataset(view, store, all_parts, failures))


def _dataset(view: View, store: Store, all_parts: Sequence[Part], failures: list[BaseException]) -> Any:
    """A view as a dataset of Arrow, which DuckDB asks for columns and conditions."""
    import pyarrow
    from pyarrow import dataset

    schema = pyarrow.schema([(name, _arrow_type(kind)) for name, kind in view.columns.items()])

    class ViewDataset(dataset.Dataset):  # type: ignore[misc]
        """What DuckDB uses of a dataset: its schema, and readers of some columns of the rows that match a filter."""

        def __init__(self) -> None:
            # The base holds a dataset of Arrow's own, and this is none.
            pass

        @property
        def schema(self) -> pyarrow.Schema:
            return schema

        def scanner(self, columns: Sequence[str] | None = None, filter: Any = None, **_: Any) -> _Scan:  # noqa: A002
            return _Scan(self._reader(list(schema.names if columns is None else columns), filter))

        def _reader(self, columns: Sequence[str], matching: Any) -> pyarrow.RecordBatchReader:
            wanted = schema.empty_table().select(columns).schema
            return pyarrow.RecordBatchReader.from_batches(wanted, self._batches(columns, matching))

        def _batches(self, columns: Sequence[str], matching: Any) -> Iterator[pyarrow.RecordBatch]:
            # The expression does not list its fields; a name too many only costs time.
            condition = "" if matching is None else str(matching)
            used = [name for name in schema.names if name in columns or re.search(rf"\b{name}\b", condition)]
            try:
                for part in _chosen(all_parts, schema, matching) if view.has_parts else (None,):
                    for page in view.read(store, frozenset(used), part):
                        batch = _batch(page, used, view)
                        yield (batch if matching is None else batch.filter(matching)).select(columns)
            except GeneratorExit:
                # The query has enough rows.
                raise
            except BaseException as error:
                failures.append(error)
                raise

    return ViewDataset()


@dataclass(frozen=True, slots=True)
class _Scan:
    """What DuckDB uses of a scanner of Arrow."""

    reader: pyarrow.RecordBatchReader

    def to_reader(self) -> pyarrow.RecordBatchReader:
        return self.reader


def _chosen(all_parts: Sequence[Part], schema: pyarrow.Schema, matching: Any) -> Sequence[Part]:
    """The parts that may have rows which match. Arrow decides it, as for files that hold one part each."""
    if matching is None:
        return all_parts
    from pyarrow import dataset, fs

    field = dataset.field
    kind, system = dataset.ParquetFileFormat(), fs.LocalFileSystem()
    files = []
    for number, part in enumerate(all_parts):
        holds = (field("experiment") == part.evaluation.experiment.name) & (
            field("evaluation") == part.evaluation.spec.nodeid
        )
        holds &= field("index") >= part.first
        if part.end is not None:
            holds &= field("index") < part.end
        files.append(kind.make_fragment(str(number), system, partition_expression=holds))
    all_files = dataset.FileSystemDataset(files, schema, kind, system)
    return [all_parts[int(file.path)] for file in all_files.get_fragments(filter=matching)]


def _batch(page: Page, names: Sequence[str], view: View) -> pyarrow.RecordBatch:
    import pyarrow

    return pyarrow.record_batch([_array(page[name], view.columns[name]) for name in names], names=names)


def _array(values: Sequence[Any], kind: Kind) -> pyarrow.Array:
    import pyarrow

    if kind is Kind.JSON:
        return pyarrow.ExtensionArray.from_storage(_arrow_type(kind), _array(values, Kind.TEXT))
    if kind is Kind.MOMENT:
        seconds = pyarrow.array(values, pyarrow.float64())
        microseconds = pyarrow.compute.round(pyarrow.compute.multiply(seconds, 1e6))
        return microseconds.cast(pyarrow.int64()).cast(_arrow_type(kind))
    try:
        return pyarrow.array(values, _arrow_type(kind))
    except UnicodeEncodeError:
        # A lone surrogate cannot be encoded as UTF-8. It becomes a question mark.
        return pyarrow.array(list(map(_encodable, values)), _arrow_type(kind))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_encodable(name): each for name, each in value.items()}
    return list(map(_encodable, value)) if isinstance(value, list) else value


def _arrow_type(kind: Kind) -> pyarrow.DataType:
    import pyarrow

    return {
        Kind.TEXT: pyarrow.large_string(),
        Kind.JSON: pyarrow.json_(pyarrow.large_string()),
        Kind.INTEGER: pyarrow.int64(),
        Kind.NUMBER: pyarrow.float64(),
        Kind.FLAG: pyarrow.bool_(),
        Kind.MOMENT: pyarrow.timestamp("us", tz="UTC"),
        Kind.TEXTS: pyarrow.list_(pyarrow.string()),
        Kind.NUMBERS: pyarrow.map_(pyarrow.string(), pyarrow.float64()),
    }[kind]


_EXAMPLE = 'One query, as in: doteval query "SELECT experiment, score, value FROM metrics"'
_HINT = "The views and their columns: doteval docs reading-results; SHOW TABLES and DESCRIBE records list them too."

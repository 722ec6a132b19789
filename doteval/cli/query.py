"""`doteval query`: SQL over the result store, answered by DuckDB."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from doteval.cli.options import existing_store, json_option, storage_option
from doteval.cli.streams import say_aside
from doteval.errors import UsageError

if TYPE_CHECKING:
    from doteval.store.duckdb_queries import Answer

# Rows and characters of a value in a table; files and JSON have all of them.
_LIMIT = 100
_SHOWN = 80
_STDIN = "-"


@click.command("query")
@click.argument("sql", required=False)
@click.option("--file", "source", type=click.Path(path_type=Path), metavar="FILE", help="Read the query from a file.")
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["table", "csv", "jsonl", "parquet", "arrow"]),
    help="How rows are written.  [default: that of the name of FILE, else table]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write the rows to a file.")
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    metavar="N",
    help=f"So many rows; 0 for all.  [default: {_LIMIT} in a table, else all]",
)
@storage_option
@json_option
def command(
    sql: str | None,
    source: Path | None,
    format_name: str | None,
    output: Path | None,
    limit: int | None,
    storage: str | None,
    as_json: bool,
) -> None:
    """Answer an SQL query over the result store; - reads it from stdin.

    The views are experiments, evaluations, metrics, records, scores, usage, attempts, calls and workers. DESCRIBE
    records lists the columns of one. DuckDB answers the query, in its dialect: pip install 'doteval[query]'. The
    store is only read.

    \b
    doteval query "SELECT experiment, score, value FROM metrics ORDER BY value DESC"
    doteval query "SELECT row->>'category' AS category, avg(scores['f1']) FROM records GROUP BY 1"
    doteval query --file slow.sql -o slow.parquet
    """
    text = _text(sql, source)
    chosen = _format(format_name, output, as_json=as_json)
    if limit is None:
        limit = _LIMIT if chosen == "table" else 0
    from doteval.store.duckdb_queries import answer

    with existing_store(storage) as store, answer(store, text) as found:
        if chosen == "table":
            _print_table(found, limit)
            return
        _check_names(found.columns)
        if as_json:
            _write_json(found, limit)
        elif output is None:
            _write(sys.stdout.buffer, chosen, found, limit)
        else:
            from doteval.analysis.export import complete_file
            from doteval.core.wording import counted

            with complete_file(output) as file:
                count = _write(file, chosen, found, limit)
            say_aside(f"Wrote {counted(count, 'row')} to {output}")


def _text(sql: str | None, source: Path | None) -> str:
    if (sql is None) == (source is None):
        raise click.UsageError("Give one query: as an argument, with --file, or - for standard input.")
    try:
        if source is not None and str(source) != _STDIN:
            return source.read_text(encoding="utf-8")
        return sys.stdin.read() if sql in (None, _STDIN) else str(sql)
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"the query in {source or 'standard input'} is not UTF-8") from error


def _format(name: str | None, output: Path | None, *, as_json: bool) -> str:
    if as_json:
        if name is not None or output is not None:
            raise click.UsageError("--json writes to stdout, and cannot be combined with --format or --output.")
        return "json"
    if output is None:
        if name in ("parquet", "arrow") and sys.stdout.isatty():
            raise click.UsageError(f"{name} is not text: name a file with -o, or a pipe.")
        return name or "table"
    if name == "table":
        raise click.UsageError("A table is for the screen: choose csv, jsonl, parquet or arrow for a file.")
    from doteval.analysis.export import format_of

    return format_of(output, name)


def _check_names(columns: Sequence[str]) -> None:
    double = next((name for name in columns if list(columns).count(name) > 1), None)
    if double is not None:
        raise UsageError(
            f"two columns of the answer have the name {double!r}", remedy="Name one of them: SELECT ... AS name."
        )


def _write(file: IO[bytes], chosen: str, found: Answer, limit: int) -> int:
    from doteval.analysis.export import FORMATS, CellTable, cell, write_batches

    if chosen in ("parquet", "arrow"):
        return write_batches(file, chosen, found.batches.schema, found.limited(limit))
    pages = (
        {
            name: values if chosen == "jsonl" else list(map(cell, values))
            for name, values in zip(found.columns, columns, strict=True)
        }
        for columns in found.pages(limit, parse_json=chosen == "jsonl")
    )
    return FORMATS[chosen](file, CellTable(found.columns, pages))


def _write_json(found: Answer, limit: int) -> None:
    from doteval.cli import documents

    kinds = zip(found.columns, found.types, strict=True)
    rows = (dict(zip(found.columns, row, strict=True)) for row in _rows(found, limit, parse_json=True))
    documents.write(
        {"columns": [{"name": name, "type": kind} for name, kind in kinds], "rows": documents.Streamed(rows)}
    )


def _rows(found: Answer, limit: int, *, parse_json: bool) -> Iterator[tuple[Any, ...]]:
    for columns in found.pages(limit, parse_json=parse_json):
        yield from zip(*columns, strict=True)


def _print_table(found: Answer, limit: int) -> None:
    from doteval.cli.pager import paged
    from doteval.cli.terminal import print_table
    from doteval.core.tables import Table

    # One more than is shown, to know whether there are more.
    rows = _rows(found, limit + 1 if limit else 0, parse_json=False)
    shown = list(itertools.islice(rows, limit)) if limit else None
    # Figures are aligned to the right from the first column on after which no text follows.
    texts = max((place + 1 for place, kind in enumerate(found.types) if kind not in _NUMBERS), default=0)
    with paged() as console:
        # A table needs its rows to find the width of its columns, so that a long one is printed in parts.
        parts = iter(lambda: list(itertools.islice(rows, 1000)), []) if shown is None else iter([shown])
        for part in parts:
            table = Table(*found.columns, left=texts, prose=texts == len(found.columns))
            for row in part:
                table.add_row(*map(_short, row))
            print_table(console, table)
        if shown == []:
            console.print("The query has no rows.")
        elif shown is not None and next(rows, None) is not None:
            more = f"These are the first {limit:,}; --limit N shows N, --limit 0 all, and -o FILE writes all"
            console.print(more, style="yellow")


_NUMBERS = frozenset(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UBIGINT", "FLOAT", "DOUBLE"))


def _short(value: Any) -> str:
    from doteval.analysis.export import cell

    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(cell(value)).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"

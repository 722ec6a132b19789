"""Reads tables that hold a row and its scores in each line: CSV, JSON lines, JSON arrays and Parquet."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from doteval.core.json_codec import content_key, key_of
from doteval.core.plugins import did_you_mean
from doteval.core.results import Outcome, RowError, RowStatus, Score
from doteval.core.wording import counted
from doteval.datasets.files import FORMATS, open_file
from doteval.errors import DatasetError
from doteval.importing.logs import ImportedRow, Log, LogError, NoLogError, Remarks

SUFFIXES = tuple(FORMATS)

_TRUE = frozenset({"true", "yes"})
_FALSE = frozenset({"false", "no"})


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which columns of a table mean what. All others are the values of the row.

    scores: those with scores; a table without any is no log.
    key: the one that rows of two experiments are paired by, None to pair them by all their values.
    prompt, response, error: None for none.
    """

    scores: tuple[str, ...] = ()
    key: str | None = None
    prompt: str | None = None
    response: str | None = None
    error: str | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """All that the user has named."""
        return (*self.scores, *(each for each in (self.key, self.prompt, self.response, self.error) if each))


def no_scores_named(path: Path) -> NoLogError:
    """Return the error for a file that may be a table, of whose columns nothing is known."""
    return NoLogError(
        f"{path} is no log that doteval knows",
        remedy="For a table of rows and scores, say which columns hold scores: --score NAME, and --key NAME.",
    )


def open_table(path: Path, columns: TableColumns) -> Log:
    """Open the table in a file.

    Raises LogError: it cannot be read, lacks a column, or two rows have one key.
    """
    if not columns.scores:
        raise no_scores_named(path)
    # Read once before anything is stored, so that a wrong table leaves nothing behind.
    seen: dict[bytes, int] = {}
    count = 0
    for number, record in _records(path):
        count = number
        missing = [name for name in columns.named if name not in record]
        if missing:
            raise LogError(
                f"{path}, row {number}: it has no column {missing[0]!r}", remedy=did_you_mean(missing[0], record)
            )
        if columns.key is not None:
            key = bytes.fromhex(content_key(key_of(record[columns.key])))
            if key in seen:
                raise LogError(
                    f"{path}: rows {seen[key]} and {number} have the same {columns.key}",
                    remedy="Name a column with --key whose values differ, or leave --key out.",
                )
            seen[key] = number
    if count == 0:
        raise LogError(f"{path} has no rows", remedy="Give it at least one.")
    name = path.name.split(".")[0]
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return Log(
        path=path,
        tool=None,
        experiment=name,
        file=path.name,
        name=name,
        rows=functools.partial(_rows, path, columns),
        row_count=count,
        began_at=written,
        ended_at=written,
    )


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        for number, record in enumerate(open_file(path).rows(), start=1):
            if not isinstance(record, dict):
                raise LogError(
                    f"{path}, row {number}: it is {type(record).__name__}, not an object with columns",
                    remedy="Write one JSON object for each row.",
                )
            yield number, record
    except DatasetError as error:
        raise LogError(error.message, remedy=error.remedy) from error


def _rows(path: Path, columns: TableColumns, remarks: Remarks) -> Iterator[ImportedRow]:
    outcome_columns = {*columns.scores, columns.prompt, columns.response, columns.error} - {None}
    for number, record in _records(path):
        values = {name: value for name, value in record.items() if name not in outcome_columns}
        key = None if columns.key is None else key_of(record[columns.key])
        yield ImportedRow(key, values, {0: _outcome(path, number, record, columns, remarks)})


def _outcome(path: Path, number: int, record: Mapping[str, Any], columns: TableColumns, remarks: Remarks) -> Outcome:
    # Data frames write NaN where there is nothing.
    error = record[columns.error] if columns.error and not _is_nan(record[columns.error]) else None
    scores = []
    for name in dict.fromkeys(columns.scores):
        value = _value(record[name])
        if value is None or _is_nan(value):
            remarks.note(f"rows without a value of {name}")
        elif isinstance(value, (dict, list)):
            raise LogError(
                f"{path}, row {number}: the score {name} is {counted(len(value), 'value')}, not one",
                remedy="Give each of them a column.",
            )
        else:
            scores.append(Score(name, value, _metrics(value)))
    return Outcome(
        status=RowStatus.FAILED if error else RowStatus.DONE,
        started_at=path.stat().st_mtime,
        seconds=0.0,
        scores=tuple(scores),
        prompt=record[columns.prompt] if columns.prompt else None,
        model_response=record[columns.response] if columns.response else None,
        error=RowError("Error", str(error)) if error else None,
    )


def _value(stored: Any) -> Any:
    """A score as doteval takes it: the cells of CSV files are text.

    >>> _value("true"), _value("0.5"), _value("noun"), _value("")
    (True, 0.5, 'noun', None)
    """
    if not isinstance(stored, str):
        return stored
    text = stored.strip()
    if text.lower() in _TRUE or text.lower() in _FALSE:
        return text.lower() in _TRUE
    try:
        return float(text) if text else None
    except ValueError:
        return stored


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _metrics(value: Any) -> list[str]:
    if isinstance(value, bool):
        return ["accuracy"]
    return ["mean"] if isinstance(value, (int, float)) else []

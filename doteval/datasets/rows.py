"""Turns one record of a dataset into values by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_values(columns: tuple[str, ...], record: Any) -> dict[str, Any]:
    """The values of one row by column.

    A tuple or list maps by position, and further values are ignored. A dict or other mapping maps by key, and a missing
    key gives None. Anything else is the value of the only column. A row of a NumPy array maps by position if there are
    several columns, and a row of a structured one by field.

    >>> row_values(("text", "label"), ("hello", 1, "ignored"))
    {'text': 'hello', 'label': 1}

    Raises ValueError if the record is too short, or if there are several columns and it is not a tuple, list or dict.
    The message describes the shape of the record and never contains its content.
    """
    if isinstance(record, (tuple, list)):
        if len(record) < len(columns):
            raise ValueError(
                f"the row is a {type(record).__name__} of {len(record)}, "
                f"and the columns {', '.join(columns)} need {len(columns)}"
            )
        return dict(zip(columns, record, strict=False))
    # Checked after tuples and lists: the check for a mapping is slower, and this runs for each row.
    if isinstance(record, Mapping):
        return {column: record.get(column) for column in columns}
    if type(record).__module__ == "numpy" and hasattr(record, "dtype"):
        if record.ndim == 0 and record.dtype.names:
            return {column: record[column] if column in record.dtype.names else None for column in columns}
        if record.ndim and len(columns) > 1:
            return row_values(columns, tuple(record))
    if len(columns) == 1:
        return {columns[0]: record}
    raise ValueError(
        f"the row is a {type(record).__name__}, and the columns {', '.join(columns)} need a tuple, a list or a dict"
    )

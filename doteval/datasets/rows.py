"""One record of a dataset becomes values by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def row_values(columns: tuple[str, ...], record: Any) -> dict[str, Any]:
    """The values of one row by column.

    A tuple or list maps by position, and what is beyond the columns is ignored. A dict (any mapping)
    maps by key, and what it lacks is None. Anything else is the value of the only column.

    Raises ValueError, which says the record's shape and never its content, if it is too short, or no
    tuple, list or dict where there are several columns.
    """
    if isinstance(record, (tuple, list)):
        if len(record) < len(columns):
            raise ValueError(
                f"the row is a {type(record).__name__} of {len(record)}, "
                f"and the columns {', '.join(columns)} need {len(columns)}"
            )
        return dict(zip(columns, record, strict=False))
    # After those, since to ask whether something is a mapping takes longer, and this is asked of each row.
    if isinstance(record, Mapping):
        return {column: record.get(column) for column in columns}
    if len(columns) == 1:
        return {columns[0]: record}
    raise ValueError(
        f"the row is a {type(record).__name__}, and the columns {', '.join(columns)} need a tuple, a list or a dict"
    )

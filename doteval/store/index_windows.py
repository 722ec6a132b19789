"""Parts the results of an evaluation by the indexes of their rows, for queries whose conditions read other tables.

A query that many rows match is answered from the first window; one that none matches reads each table once.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import func, select

from doteval.store.engine import Database
from doteval.store.tables import RESULT

# Rows in the first window and in the largest; each is so many times as large as the one before. Readers of all results
# hold the lines of a window in memory: 100,000 took 27 MB more of a web view.
_FIRST_WINDOW = 2_000
_LARGEST_WINDOW = 40_000
_GROWTH = 4


def index_windows(
    database: Database, evaluation_id: int, within: tuple[int, int | None] = (0, None)
) -> Iterator[tuple[int, int]]:
    """Ranges of row indexes that hold all results, the end not included.

    within: only these indexes, the end not included.
    """
    lowest, end = within
    query = select(func.min(RESULT.c.row_index), func.max(RESULT.c.row_index))
    with database.read() as connection:
        low, high = connection.execute(query.where(RESULT.c.evaluation_id == evaluation_id)).one()
    if low is None:
        return
    size, first = _FIRST_WINDOW, max(int(low), lowest)
    last = high if end is None else min(high, end - 1)
    while first <= last:
        yield first, first + size if end is None else min(first + size, end)
        first += size
        size = min(size * _GROWTH, _LARGEST_WINDOW)

"""Task sizing: how many rows a row task holds. Fast rows travel many at a time, slow rows few, and fewer at the end.

A row task costs about 5 ms whatever it holds, and while one worker process holds it, no other can run its rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doteval.store import RowRange

# The most rows of a row task.
MOST_ROWS = 1600
# Rows of a row task until the first results tell how long rows take: few, so that slow rows are soon done. With fast
# rows such row tasks cost many times what the rows cost, so only as many are published as keep every worker process
# busy (this many times the rows in flight), and at least a few.
_ROWS_UNKNOWN = 10
_TIMES_IN_FLIGHT_UNKNOWN = 4
_FEWEST_UNKNOWN = 5
_TASKS_PER_SLOT = 4
# Where workers pull row tasks and run many rows at once, a first row task may hold this fraction (1/n) of the rows that
# a process runs at once: they run side by side, and are soon done in any case.
_PARTS_UNKNOWN = 4
# Seconds that the rows of a row task should take one after the other, since a long row task blocks its slot. With fewer
# rows than the minimum, a slow row could leave a worker process idle.
_TASK_SECONDS = 1.0
_FEWEST_ROWS = 10
# Where workers pull row tasks and run many rows at once, seconds for which a row task should keep a process busy: many
# times what a row task costs, while the process holds few more rows than it needs. And the least row tasks for each
# process, so that little is lost at the end when two processes cannot share the last one.
_BUSY_SECONDS = 0.25
_TASKS_PER_PROCESS = 32
# At the end row tasks hold fewer rows, so that no worker process has many left while another has none: the rest divided
# by this many times the number of processes, but at least rows for so many seconds, several times a row task's cost.
_PARTS_LEFT = 2
_LAST_SECONDS = 0.04
# The least seconds of a row, to divide by.
_SHORTEST_ROW_SECONDS = 1e-6


@dataclass(frozen=True, slots=True)
class TaskSize:
    """How many rows a row task is to hold, and at least how many at the end of an evaluation (`last`)."""

    rows: int
    last: int


def task_size(
    total: int | None,
    seconds: float | None,
    *,
    slots: int,
    at_once: Sequence[int],
    pull_based: bool,
    batch: int | None = None,
) -> TaskSize:
    """The size of row tasks.

    total: rows to run, None if that is not known yet
    seconds: what a row takes, None if that is not known yet
    slots: rows that can be in flight in all worker processes
    at_once: rows that each worker process runs at the same time
    pull_based: whether worker processes ask for each row task
    batch: row tasks hold whole batches of so many rows
    """
    total = total or MOST_ROWS
    if seconds is None:
        rows = min(_ROWS_UNKNOWN, _fair(total, slots))
        if pull_based and at_once:
            rows = max(rows, min(min(at_once) // _PARTS_UNKNOWN, _share(total, at_once)))
        last = rows
    else:
        seconds = max(seconds, _SHORTEST_ROW_SECONDS)
        in_series = int(min(MOST_ROWS, max(_FEWEST_ROWS, _TASK_SECONDS / seconds)))
        rows, together = min(in_series, _fair(total, slots)), 1
        if pull_based and at_once:
            # A process pulls no more row tasks than it needs, however many slots it has.
            rows = max(rows, min(int(_TASK_SECONDS / seconds), in_series, _fair(total, sum(at_once))))
            together = _side_by_side(total, seconds, at_once)
        rows = max(rows, together)
        last = max(1, together, min(rows, int(_LAST_SECONDS / seconds)))
    if batch is not None:
        # A worker process cannot put rows of two row tasks into one batch.
        rows = last = -(-rows // batch) * batch
    return TaskSize(rows, last)


def _fair(total: int, slots: int) -> int:
    """Rows of a row task such that there are several row tasks for each slot."""
    return max(1, total // (slots * _TASKS_PER_SLOT))


def _side_by_side(total: int, seconds: float, at_once: Sequence[int]) -> int:
    """Rows that a row task may hold because a process runs them side by side."""
    fewest = min(at_once)
    return min(fewest, int(fewest * _BUSY_SECONDS / seconds), _share(total, at_once))


def _share(total: int, at_once: Sequence[int]) -> int:
    """Rows of a row task such that there are enough row tasks for every worker process until the end."""
    return total // (len(at_once) * _TASKS_PER_PROCESS)


def most_unknown(size: TaskSize, *, slots: int, at_once: Sequence[int]) -> int:
    """How many row tasks may be published before it is known how long rows take."""
    return max(_FEWEST_UNKNOWN, _TIMES_IN_FLIGHT_UNKNOWN * max(sum(at_once), slots) // size.rows)


def tapered(ranges: Sequence[RowRange], size: TaskSize, processes: int) -> list[RowRange]:
    """The last ranges of an evaluation, cut into smaller and smaller ones so that all worker processes end together."""
    parts = _PARTS_LEFT * max(1, processes)
    left = sum(each.last - each.first + 1 for each in ranges)
    cut: list[RowRange] = []
    for each in ranges:
        # A range with gaps needs more indexes for the same number of rows.
        fewest = size.last * max(1, (each.last - each.first + 1) // size.rows)
        first = each.first
        while first <= each.last:
            last = min(each.last, first + max(fewest, left // parts) - 1)
            cut.append(RowRange(first, last))
            left -= last - first + 1
            first = last + 1
    return cut

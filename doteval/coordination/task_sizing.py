"""Task sizes: how many rows a row task holds. Many if they are fast, few if they are slow, and fewer at the end.

A row task costs some 5 ms, whatever it holds; and what one worker process holds no other can run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from doteval.store import RowRange

# What row tasks hold at most.
MOST_ROWS = 1600
# Until the first results tell how long rows take: so few that slow ones are soon done. Of fast ones such row tasks cost
# many times what the rows do: so many are published that all hands are full, and at least a few.
_ROWS_UNKNOWN = 10
_HANDS_FULL = 4
_FEWEST_UNKNOWN = 5
_TASKS_PER_SLOT = 4
# Where worker processes ask for each row task and run many rows at once, it may hold one part in so many of those:
# they run side by side, and are soon done in any case.
_PARTS_UNKNOWN = 4
# Seconds that the rows of a row task should take one after the other: one that takes long keeps others out
# of its slot. But with fewer rows than this a slow row could leave a worker process idle.
_TASK_SECONDS = 1.0
_FEWEST_ROWS = 10
# Where a worker process runs many rows at once, seconds for which a row task should keep it busy, if it asks for
# each: many times what a row task costs, and yet it has little more in hand than it needs. And tasks for each process,
# at least, so that little is lost at the end by two processes that do not share the last.
_BUSY_SECONDS = 0.25
_TASKS_PER_PROCESS = 32
# Towards the end row tasks hold fewer rows, lest one worker process has many left while another has none: of what is
# left one part in so many times the processes, but rows for so many seconds, several times what a row task costs.
_PARTS_LEFT = 2
_LAST_SECONDS = 0.04
# Rows take no less, in seconds, so that it can be divided by.
_SHORTEST = 1e-6


@dataclass(frozen=True, slots=True)
class TaskSize:
    """How many rows a row task is to hold, and how few at the end of an evaluation."""

    rows: int
    last: int


def task_size(
    total: int | None,
    seconds: float | None,
    *,
    slots: int,
    at_once: Sequence[int],
    asked: bool,
    batch: int | None = None,
) -> TaskSize:
    """The size of the row tasks of so many rows that take so many seconds each; None: nobody knows yet.

    `slots` is how many rows can be in flight in all worker processes, `at_once` how many each of them runs at the same
    time; `asked` says whether they ask for each row task. With `batch`, row tasks hold whole batches of so many rows.
    """
    total = total or MOST_ROWS
    if seconds is None:
        rows = min(_ROWS_UNKNOWN, _fair(total, slots))
        if asked and at_once:
            rows = max(rows, min(min(at_once) // _PARTS_UNKNOWN, _share(total, at_once)))
        last = rows
    else:
        seconds = max(seconds, _SHORTEST)
        in_turn = int(min(MOST_ROWS, max(_FEWEST_ROWS, _TASK_SECONDS / seconds)))
        rows, together = min(in_turn, _fair(total, slots)), 1
        if asked and at_once:
            # It holds no more of them than its rows need, however many slots it has; slow rows are the fewer for it.
            rows = max(rows, min(int(_TASK_SECONDS / seconds), in_turn, _fair(total, sum(at_once))))
            together = _side_by_side(total, seconds, at_once)
        rows = max(rows, together)
        last = max(1, together, min(rows, int(_LAST_SECONDS / seconds)))
    if batch is not None:
        # A worker process cannot put rows of two row tasks into one.
        rows = last = -(-rows // batch) * batch
    return TaskSize(rows, last)


def _fair(total: int, hands: int) -> int:
    """Rows of a row task of which there are some for each of so many hands."""
    return max(1, total // (hands * _TASKS_PER_SLOT))


def _side_by_side(total: int, seconds: float, at_once: Sequence[int]) -> int:
    """Rows that a row task may hold because they run side by side."""
    fewest = min(at_once)
    return min(fewest, int(fewest * _BUSY_SECONDS / seconds), _share(total, at_once))


def _share(total: int, at_once: Sequence[int]) -> int:
    """Rows of a row task of which there are enough for every worker process to the end."""
    return total // (len(at_once) * _TASKS_PER_PROCESS)


def most_unknown(size: TaskSize, *, slots: int, at_once: Sequence[int]) -> int:
    """How many row tasks may be published before anybody knows how long their rows take."""
    return max(_FEWEST_UNKNOWN, _HANDS_FULL * max(sum(at_once), slots) // size.rows)


def tapered(ranges: Sequence[RowRange], size: TaskSize, processes: int) -> list[RowRange]:
    """The last ranges of an evaluation in smaller and smaller ones, so that all worker processes end together."""
    parts = _PARTS_LEFT * max(1, processes)
    left = sum(each.last - each.first + 1 for each in ranges)
    cut: list[RowRange] = []
    for each in ranges:
        # If it has gaps, so many more indexes are needed for as many rows.
        fewest = size.last * max(1, (each.last - each.first + 1) // size.rows)
        first = each.first
        while first <= each.last:
            last = min(each.last, first + max(fewest, left // parts) - 1)
            cut.append(RowRange(first, last))
            left -= last - first + 1
            first = last + 1
    return cut

"""The flight log: which rows are in flight in a process, in a file that outlives it.

A worker process notes every row when it begins and crosses it out when it ends. When the process
dies, its supervisor reads which rows it took along. Of a call that has a time limit it also notes since when it is
under way: its supervisor sees when it is over, whatever state the process is in. A note costs a write to mapped
memory, no system call; what was written is in the file however the process dies, short of the machine's own death.
"""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doteval.core.results import Row

# In flight (1) or free (0), evaluation id, row index, sample; when its call began, and its time limit.
_ENTRY = struct.Struct("=qqqqdd")
_IN_FLIGHT = struct.Struct("=q")
_CALL = struct.Struct("=dd")
_CALL_OFFSET = _ENTRY.size - _CALL.size
_ENTRIES = 4096


def inflight_journal_path(pid: int, directory: str | Path) -> Path:
    """Where a process notes its rows in flight."""
    return Path(directory) / f"{pid}.flights"


@dataclass(frozen=True, slots=True)
class InflightRow:
    """A row in flight.

    `called_at` is when the call that it is in began, by the clock that all processes of a machine share
    (`time.monotonic`), and `limit` the seconds that it may take; 0 while it is in no call, or in one without limit.
    """

    evaluation_id: int
    row_index: int
    sample: int
    called_at: float = 0.0
    limit: float = 0.0


class InflightJournal:
    """Written by a worker process; safe to use from several threads.

    Rows beyond 4,096 at a time are not noted: nobody has as many in one process.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_ENTRY.size * _ENTRIES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # Where entries may go. No lock: to take one from the end of a list is one step of the interpreter, and so is
        # to put some back.
        self._free = [at * _ENTRY.size for at in range(_ENTRIES - 1, -1, -1)]

    @property
    def in_flight(self) -> int:
        """How many rows are noted now."""
        return _ENTRIES - len(self._free)

    def note(self, evaluation_id: int, rows: Sequence[Row]) -> JournalledRows:
        """Note that rows begin."""
        places = []
        for row in rows:
            try:
                place = self._free.pop()
            except IndexError:
                break
            _ENTRY.pack_into(self._map, place, 1, evaluation_id, row.index, row.sample, 0.0, 0.0)
            places.append(place)
        return JournalledRows(self._map, self._free, places)

    def complete_all(self) -> None:
        """Cross out every row: the process leaves of its own accord, and none of them is to blame."""
        self._map[:] = bytes(len(self._map))


class JournalledRows:
    """The rows of one call in the flight log: a `doteval.runner.assignments.JournalEntry`."""

    __slots__ = ("_free", "_map", "_places")

    def __init__(self, noted_in: mmap.mmap, free: list[int], places: list[int]) -> None:
        self._map = noted_in
        self._free = free
        self._places = places

    def called(self, limit: float) -> None:
        """Note that their call begins, which may take `limit` seconds."""
        now = time.monotonic()
        for place in self._places:
            _CALL.pack_into(self._map, place + _CALL_OFFSET, now, limit)

    def returned(self) -> None:
        """Note that the call has ended."""
        for place in self._places:
            _CALL.pack_into(self._map, place + _CALL_OFFSET, 0.0, 0.0)

    def completed(self) -> None:
        """Cross the rows out, which have ended. To be called once: their places are for others then."""
        for place in self._places:
            _IN_FLIGHT.pack_into(self._map, place, 0)
        self._free.extend(self._places)


def read_inflight_journal(path: Path) -> list[InflightRow]:
    """The rows that were in flight when the process ended; none if it never wrote a log."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    # The first numbers of all entries at once: of thousands of places most are free.
    entries = memoryview(content)[: len(content) // _ENTRY.size * _ENTRY.size]
    taken = entries.cast("q")[:: _ENTRY.size // _IN_FLIGHT.size].tolist()
    return [
        InflightRow(*_ENTRY.unpack_from(content, number * _ENTRY.size)[1:])
        for number, in_flight in enumerate(taken)
        if in_flight
    ]

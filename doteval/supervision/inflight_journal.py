"""The in-flight journal: which rows are in flight in a process, in a file that outlives the process.

A worker process writes an entry for every row when it begins, and frees it when the row completes. When the process
dies, its supervisor reads which rows were in flight. The entry also says when a call with a time limit began, so that
the supervisor can see a call that hangs, whatever state the process is in. An entry is a write to mapped memory,
without a system call. It is in the file however the process dies, unless the whole machine fails.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from doteval.core import clocks
from doteval.core.results import Row

# In flight (1) or free (0), evaluation id, row index, sample, start of the call, its time limit.
_ENTRY = struct.Struct("=qqqqdd")
_IN_FLIGHT = struct.Struct("=q")
_CALL = struct.Struct("=dd")
_CALL_OFFSET = _ENTRY.size - _CALL.size
_ENTRIES = 4096


def inflight_journal_path(directory: str | Path) -> Path:
    """The path of the in-flight journal of a process, in the directory that its supervisor has made for it."""
    return Path(directory) / "inflight"


@dataclass(frozen=True, slots=True)
class InflightRow:
    """A row in flight.

    called_at: when its call began, by the clock that all processes of a machine share (`time.monotonic`).
    limit: seconds that the call may take.

    Both are 0 while the row is in no call, or in one without a limit.
    """

    evaluation_id: int
    row_index: int
    sample: int
    called_at: float = 0.0
    limit: float = 0.0


class InflightJournal:
    """The writer's side of the journal, in a worker process. Safe to use from several threads.

    It has room for 4,096 rows at a time; further rows are not noted. No process has as many in flight.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_ENTRY.size * _ENTRIES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        # The offsets of free entries. No lock is needed: `pop` and `extend` of a list are atomic in CPython.
        self._free = [at * _ENTRY.size for at in range(_ENTRIES - 1, -1, -1)]

    @property
    def in_flight(self) -> int:
        """The number of rows in flight."""
        return _ENTRIES - len(self._free)

    def note(self, evaluation_id: int, rows: Sequence[Row]) -> JournalledRows:
        """Note that rows begin. Returns their entries."""
        offsets = []
        for row in rows:
            try:
                offset = self._free.pop()
            except IndexError:
                break
            _ENTRY.pack_into(self._map, offset, 1, evaluation_id, row.index, row.sample, 0.0, 0.0)
            offsets.append(offset)
        return JournalledRows(self._map, self._free, offsets)

    def complete_all(self) -> None:
        """Free every entry: the process leaves of its own accord, and none of its rows is to blame."""
        self._map[:] = bytes(len(self._map))


class JournalledRows:
    """The entries of the rows of one call: a `doteval.runner.assignments.JournalEntry`."""

    __slots__ = ("_free", "_map", "_offsets")

    def __init__(self, noted_in: mmap.mmap, free: list[int], offsets: list[int]) -> None:
        self._map = noted_in
        self._free = free
        self._offsets = offsets

    def called(self, limit: float) -> None:
        """Note that the call begins, which may take `limit` seconds."""
        now = clocks.monotonic()
        for offset in self._offsets:
            _CALL.pack_into(self._map, offset + _CALL_OFFSET, now, limit)

    def returned(self) -> None:
        """Note that the call has ended."""
        for offset in self._offsets:
            _CALL.pack_into(self._map, offset + _CALL_OFFSET, 0.0, 0.0)

    def completed(self) -> None:
        """Free the entries of the rows, which have ended. To be called once: other rows may use the entries then."""
        for offset in self._offsets:
            _IN_FLIGHT.pack_into(self._map, offset, 0)
        self._free.extend(self._offsets)


def read_inflight_journal(path: Path) -> list[InflightRow]:
    """The rows that were in flight when the process ended; none if it has no journal."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    # The first numbers of all entries at once, since most of the thousands of entries are free.
    entries = memoryview(content)[: len(content) // _ENTRY.size * _ENTRY.size]
    taken = entries.cast("q")[:: _ENTRY.size // _IN_FLIGHT.size].tolist()
    return [
        InflightRow(*_ENTRY.unpack_from(content, number * _ENTRY.size)[1:])
        for number, in_flight in enumerate(taken)
        if in_flight
    ]

"""The flight log: which rows are in flight in a process, in a file that outlives it.

A worker process notes every row when it begins and crosses it out when it ends. When the process
dies, its supervisor reads which rows it took along. Of a call that has a time limit it also notes since when it is
under way: its supervisor sees when it is over, whatever state the process is in. A note costs a write to mapped
memory, no system call; what was written is in the file however the process dies, short of the machine's own death.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

# In flight (1) or free (0), evaluation id, row index, sample; when its call began, and its time limit.
_ENTRY = struct.Struct("=qqqqdd")
_CALL = struct.Struct("=dd")
_CALL_OFFSET = _ENTRY.size - _CALL.size
_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class FlightEntry:
    """A row in flight.

    `called_at` is when the call that it is in began, by the clock that all processes of a machine share
    (`time.monotonic`), and `limit` the seconds that it may take; 0 while it is in no call, or in one without limit.
    """

    evaluation_id: int
    row_index: int
    sample: int
    called_at: float = 0.0
    limit: float = 0.0


class FlightLog:
    """Written by a worker process; safe to use from several threads.

    Rows beyond 4,096 at a time are not noted: nobody has as many in one process.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(_ENTRY.size * _ENTRIES))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._free = list(range(_ENTRIES - 1, -1, -1))
        self._lock = threading.Lock()

    def take_off(self, entries: Iterable[FlightEntry]) -> list[int]:
        """Note that rows begin. Returns what `land` wants."""
        slots = []
        with self._lock:
            for entry in entries:
                if self._free:
                    slot = self._free.pop()
                    _ENTRY.pack_into(
                        self._map, slot * _ENTRY.size, 1, entry.evaluation_id, entry.row_index, entry.sample, 0.0, 0.0
                    )
                    slots.append(slot)
        return slots

    def called(self, slots: list[int], limit: float) -> None:
        """Note that a call of these rows begins, which may take `limit` seconds."""
        now = time.monotonic()
        for slot in slots:
            _CALL.pack_into(self._map, slot * _ENTRY.size + _CALL_OFFSET, now, limit)

    def returned(self, slots: list[int]) -> None:
        """Note that the call has ended."""
        for slot in slots:
            _CALL.pack_into(self._map, slot * _ENTRY.size + _CALL_OFFSET, 0.0, 0.0)

    def land(self, slots: list[int]) -> None:
        """Cross out rows that have ended."""
        with self._lock:
            for slot in slots:
                _ENTRY.pack_into(self._map, slot * _ENTRY.size, 0, 0, 0, 0, 0.0, 0.0)
                self._free.append(slot)

    def land_all(self) -> None:
        """Cross out every row: the process leaves of its own accord, and none of them is to blame."""
        with self._lock:
            self._map[:] = bytes(len(self._map))


def read_flight_log(path: Path) -> list[FlightEntry]:
    """The rows that were in flight when the process ended; none if it never wrote a log."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    entries = _ENTRY.iter_unpack(content[: len(content) // _ENTRY.size * _ENTRY.size])
    return [FlightEntry(*entry) for in_flight, *entry in entries if in_flight]

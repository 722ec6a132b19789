"""Flights: the rows that are in flight here, noted where the supervisor sees them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

from doteval.flight_log import FlightEntry, FlightLog
from doteval.results import Row


class Flights:
    """Counts the rows in flight and notes them in this process's flight log below `directory`. Thread-safe."""

    def __init__(self, directory: str) -> None:
        self.log = FlightLog(Path(directory) / f"{os.getpid()}.flights")
        self.begun = 0
        self._counting = threading.Lock()

    def note(self, evaluation_id: int, rows: Sequence[Row]) -> NotedRows:
        """Note that rows begin."""
        slots = self.log.take_off(FlightEntry(evaluation_id, row.index, row.sample) for row in rows)
        self._count(len(rows))
        return NotedRows(self, slots, len(rows))

    def landed(self, slots: list[int], rows: int) -> None:
        """Cross out rows that have ended."""
        self.log.land(slots)
        self._count(-rows)

    def _count(self, rows: int) -> None:
        with self._counting:
            self.begun += rows


class NotedRows:
    """The rows of one call in the flight log: what the conductor calls `Noted`."""

    __slots__ = ("_flights", "_rows", "_slots")

    def __init__(self, flights: Flights, slots: list[int], rows: int) -> None:
        self._flights = flights
        self._slots = slots
        self._rows = rows

    def called(self, limit: float) -> None:
        self._flights.log.called(self._slots, limit)

    def returned(self) -> None:
        self._flights.log.returned(self._slots)

    def landed(self) -> None:
        self._flights.landed(self._slots, self._rows)

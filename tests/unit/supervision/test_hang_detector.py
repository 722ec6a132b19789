"""Calls that are over their time, seen from another process: the flight log, and a clock that the test moves."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from doteval.core.results import Row
from doteval.supervision.hang_detector import PATIENCE, HangDetector, under_way
from doteval.supervision.inflight_journal import InflightJournal, JournalledRows


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "1.flights"


def begin(flights: InflightJournal, row: int = 2) -> JournalledRows:
    return flights.note(1, [Row(row, "key", {})])


def call(flights: InflightJournal, row: int = 2) -> JournalledRows:
    """A row begins, and is called with a limit of ten seconds."""
    noted = begin(flights, row)
    noted.called(10.0)
    return noted


def test_a_call_is_over_its_time_when_it_has_been_seen_so_for_a_while(log: Path) -> None:
    clock = Clock()
    stuck, flights = HangDetector(clock=clock), InflightJournal(log)
    call(flights)
    for ahead, expected in ((9.0, False), (10.5, False), (10.5 + PATIENCE, True)):
        clock.ahead = ahead
        assert stuck.are_in(1, log) is expected


def test_a_machine_that_stood_still_ends_no_row(log: Path) -> None:
    clock = Clock()
    stuck, flights = HangDetector(clock=clock), InflightJournal(log)
    noted = call(flights)
    clock.ahead = 3600.0
    assert not stuck.are_in(1, log)
    # It comes to itself, and ends the row.
    noted.returned()
    clock.ahead += 60.0
    assert not stuck.are_in(1, log)


def test_rows_without_a_limit_and_other_processes_are_never_over_their_time(log: Path, tmp_path: Path) -> None:
    clock = Clock()
    stuck, flights = HangDetector(clock=clock), InflightJournal(log)
    begin(flights)
    for ahead in (1e6, 2e6):
        clock.ahead = ahead
        assert not stuck.are_in(1, log)
        assert not stuck.are_in(2, tmp_path / "2.flights")


def test_the_next_call_of_a_process_has_its_own_time(log: Path) -> None:
    clock = Clock()
    stuck, flights = HangDetector(clock=clock), InflightJournal(log)
    first = call(flights)
    clock.ahead = 11.0
    assert not stuck.are_in(1, log)
    first.returned()
    first.completed()
    call(flights, row=3)
    # As the clock of the flight log has not moved, this one is over its time at once; and seen so only now.
    clock.ahead = 11.0 + PATIENCE
    assert not stuck.are_in(1, log)
    assert [entry.row_index for entry in under_way(log)] == [3]

"""Calls over their time limit are found from another process, by the in-flight journal and a clock."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from doteval.core.results import Row
from doteval.supervision.hang_detector import GRACE_SECONDS, HangDetector, rows_in_calls
from doteval.supervision.inflight_journal import InflightJournal, JournalledRows


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "1.journal"


def begin(journal: InflightJournal, row: int = 2) -> JournalledRows:
    return journal.note(1, [Row(row, "key", {})])


def call(journal: InflightJournal, row: int = 2) -> JournalledRows:
    """A row begins, and is called with a limit of ten seconds."""
    rows = begin(journal, row)
    rows.called(10.0)
    return rows


def test_a_call_hangs_once_it_was_seen_over_its_limit_for_the_grace_time(log: Path) -> None:
    clock = Clock()
    detector, journal = HangDetector(clock=clock), InflightJournal(log)
    call(journal)
    for ahead, expected in ((9.0, False), (10.5, False), (10.5 + GRACE_SECONDS, True)):
        clock.ahead = ahead
        assert detector.is_hung(log) is expected


def test_a_suspended_machine_ends_no_row(log: Path) -> None:
    clock = Clock()
    detector, journal = HangDetector(clock=clock), InflightJournal(log)
    rows = call(journal)
    clock.ahead = 3600.0
    assert not detector.is_hung(log)
    # The machine wakes, and the process ends the row itself.
    rows.returned()
    clock.ahead += 60.0
    assert not detector.is_hung(log)


def test_rows_without_a_limit_never_hang(log: Path, tmp_path: Path) -> None:
    clock = Clock()
    detector, journal = HangDetector(clock=clock), InflightJournal(log)
    begin(journal)
    for ahead in (1e6, 2e6):
        clock.ahead = ahead
        assert not detector.is_hung(log)
        assert not detector.is_hung(tmp_path / "2.journal")


def test_the_next_call_of_a_process_has_its_own_grace_time(log: Path) -> None:
    clock = Clock()
    detector, journal = HangDetector(clock=clock), InflightJournal(log)
    first = call(journal)
    clock.ahead = 11.0
    assert not detector.is_hung(log)
    first.returned()
    first.completed()
    call(journal, row=3)
    # The journal's clock has not moved, so this call is over its limit at once, but it is seen so only now.
    clock.ahead = 11.0 + GRACE_SECONDS
    assert not detector.is_hung(log)
    assert [entry.row_index for entry in rows_in_calls(log)] == [3]

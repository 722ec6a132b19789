"""While a command waits for worker processes to leave, it says every ten seconds what they do."""

from __future__ import annotations

from pathlib import Path

from doteval.core.results import Row
from doteval.supervision.inflight_journal import InflightJournal, inflight_journal_path
from doteval.supervision.wait_report import WaitReport


def test_it_says_every_ten_seconds_which_rows_it_waits_for(tmp_path: Path) -> None:
    lines: list[str] = []
    now = 100.0
    report = WaitReport(lines.append, lambda: now)
    busy, tearing_down = tmp_path / "busy", tmp_path / "tearing down"
    for each in (busy, tearing_down):
        each.mkdir()
    journal = InflightJournal(inflight_journal_path(busy))
    rows = [journal.note(1, [Row(index, str(index), {})]) for index in range(7)]
    report.begin()
    for second in range(1, 22):
        now = 100.0 + second
        report.look([busy, tearing_down], 60.0 - second)
    for each in rows[1:]:
        each.completed()
    now = 131.0
    report.look([busy], 29)
    rows[0].completed()
    now = 142.0
    report.look([tearing_down], 18)
    both = "2 worker processes still to leave, waiting for rows 0, 1, 2, 3, 4 and 2 more to end"
    assert lines == [
        f"{both}; killed in 50 s at the latest",
        f"{both}; killed in 40 s at the latest",
        "1 worker process still to leave, waiting for row 0 to end; killed in 29 s at the latest",
        "1 worker process still to leave, waiting for fixtures: no row is in flight; killed in 18 s at the latest",
    ]

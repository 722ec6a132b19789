"""The usage journal holds the usage that is not stored, whenever and however the process dies."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from doteval.core.histogram import Latency
from doteval.core.metering import UsageScope, metering, observe_usage
from doteval.core.results import Usage
from doteval.supervision import usage_journal
from doteval.supervision.usage_journal import UnstoredUsage, UsageJournal, read_usage_journal

ONE, TWO = UsageScope("a", 1, 0), UsageScope("b", 1, 2)
USED = Usage("m", 1, 2, 0, 1, 10, 5, 2, 1, 3, 0.25, 1.5, 0.5, 0.125, judge=True, latency=Latency.of(0.1))


@pytest.fixture
def journal(tmp_path: Path) -> UsageJournal:
    return UsageJournal(tmp_path / "1.usage")


def test_usage_that_is_not_stored_is_read_back(journal: UsageJournal, tmp_path: Path) -> None:
    path = tmp_path / "1.usage"
    assert read_usage_journal(path) == []
    journal.spent(ONE, USED)
    journal.spent(ONE, USED)
    journal.spent(TWO, Usage("other", 1))
    journal.ended(ONE, 2**62)
    assert read_usage_journal(path) == [
        UnstoredUsage(ONE, (USED + USED,), 2**62),
        UnstoredUsage(TWO, (Usage("other", 1),)),
    ]
    journal.stored(ONE)
    assert read_usage_journal(path) == [UnstoredUsage(TWO, (Usage("other", 1),))]
    journal.spent(ONE, USED)
    assert read_usage_journal(path)[1] == UnstoredUsage(ONE, (USED,))
    journal.stored(UsageScope("never", 0))
    assert len(read_usage_journal(path)) == 2


def test_a_missing_journal_and_a_cut_last_line(journal: UsageJournal, tmp_path: Path) -> None:
    assert read_usage_journal(tmp_path / "missing") == []
    journal.spent(ONE, USED)
    path = tmp_path / "1.usage"
    cut = path.read_bytes().replace(b"\n\0", b'\n["stored","a",1', 1)
    path.write_bytes(cut)
    assert b'["stored"' in cut
    assert read_usage_journal(path) == [UnstoredUsage(ONE, (USED,))]


def test_a_full_journal_is_replaced_by_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_journal, "_BYTES", 5000)
    small = UsageJournal(tmp_path / "2.usage")
    small.spent(TWO, USED)
    for index in range(1000):
        small.spent(UsageScope("a", index), USED)
        small.ended(UsageScope("a", index), index)
        small.stored(UsageScope("a", index))
    path = tmp_path / "2.usage"
    assert path.stat().st_size < 6000
    assert read_usage_journal(path) == [UnstoredUsage(TWO, (USED,))]
    small.close()


def test_a_journal_grows_for_open_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_journal, "_BYTES", 500)
    path = tmp_path / "2.usage"
    journal = UsageJournal(path)
    scopes = [UsageScope("a" * length, length) for length in range(1, 2000, 50)]
    for scope in scopes:
        journal.spent(scope, USED)
        journal.ended(scope, scope.index)
    assert read_usage_journal(path) == [UnstoredUsage(scope, (USED,), scope.index) for scope in scopes]
    for scope in scopes:
        journal.stored(scope)
    assert read_usage_journal(path) == []
    journal.close()


def test_a_killed_process_leaves_its_journal(tmp_path: Path) -> None:
    path = tmp_path / "child.usage"
    child = os.fork()
    if child == 0:
        try:
            observe_usage(UsageJournal(path).spent)
            with metering() as meter:
                meter.add(Usage("outside of rows", 1))
                meter.scope = ONE
                meter.add(USED)
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert read_usage_journal(path) == [UnstoredUsage(ONE, (USED,))]


def test_a_process_of_an_older_release_knew_fewer_values(journal: UsageJournal, tmp_path: Path) -> None:
    journal.spent(ONE, USED)
    path = tmp_path / "1.usage"
    path.write_bytes(path.read_bytes().replace(b",0.5,0.125,true,false]", b",0.5]", 1))
    assert read_usage_journal(path) == [UnstoredUsage(ONE, (replace(USED, batch_cost=None, judge=False),))]


def test_a_process_of_a_newer_release_knew_more_values_and_other_notes(journal: UsageJournal, tmp_path: Path) -> None:
    journal.spent(ONE, USED)
    path = tmp_path / "1.usage"
    text = path.read_bytes()
    text = text.replace(b"true,false],", b'true,false,"new"],', 1).replace(
        b"]\n\0", b',"new"]\n["later","a",1,0,{}]\n\0', 1
    )
    assert text.count(b"new") == 2
    path.write_bytes(text)
    assert read_usage_journal(path) == [UnstoredUsage(ONE, (USED,))]

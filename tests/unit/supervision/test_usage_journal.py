"""The spending log: what is in it however and whenever the process dies."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from doteval.core.histogram import Latency
from doteval.core.metering import UsageScope, metering, observe_usage
from doteval.core.results import Usage
from doteval.supervision import usage_journal
from doteval.supervision.usage_journal import Spending, UsageJournal, read_usage_journal

ONE, TWO = UsageScope("a", 1, 0), UsageScope("b", 1, 2)
USED = Usage("m", 1, 2, 0, 1, 10, 5, 2, 1, 0.25, 1.5, 0.5, Latency.of(0.1))


@pytest.fixture
def log(tmp_path: Path) -> UsageJournal:
    return UsageJournal(tmp_path / "1.spending")


def test_what_is_not_stored_is_lost(log: UsageJournal, tmp_path: Path) -> None:
    path = tmp_path / "1.spending"
    assert read_usage_journal(path) == []
    log.spent(ONE, USED)
    log.spent(ONE, USED)
    log.spent(TWO, Usage("other", 1))
    log.ended(ONE, 2**62)
    assert read_usage_journal(path) == [Spending(ONE, (USED + USED,), 2**62), Spending(TWO, (Usage("other", 1),))]
    log.stored(ONE)
    assert read_usage_journal(path) == [Spending(TWO, (Usage("other", 1),))]
    log.spent(ONE, USED)
    assert read_usage_journal(path)[1] == Spending(ONE, (USED,))
    log.stored(UsageScope("never", 0))
    assert len(read_usage_journal(path)) == 2


def test_no_log_and_one_that_was_cut_short(log: UsageJournal, tmp_path: Path) -> None:
    assert read_usage_journal(tmp_path / "missing") == []
    log.spent(ONE, USED)
    path = tmp_path / "1.spending"
    cut = path.read_bytes().replace(b"\n\0", b'\n["stored","a",1', 1)
    path.write_bytes(cut)
    assert b'["stored"' in cut
    assert read_usage_journal(path) == [Spending(ONE, (USED,))]


def test_it_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_journal, "_BYTES", 5000)
    small = UsageJournal(tmp_path / "2.spending")
    small.spent(TWO, USED)
    for index in range(1000):
        small.spent(UsageScope("a", index), USED)
        small.ended(UsageScope("a", index), index)
        small.stored(UsageScope("a", index))
    path = tmp_path / "2.spending"
    assert path.stat().st_size < 6000
    assert read_usage_journal(path) == [Spending(TWO, (USED,))]
    small.close()


def test_it_has_room_for_all_that_is_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage_journal, "_BYTES", 500)
    path = tmp_path / "2.spending"
    log = UsageJournal(path)
    scopes = [UsageScope("a" * length, length) for length in range(1, 2000, 50)]
    for scope in scopes:
        log.spent(scope, USED)
        log.ended(scope, scope.index)
    assert read_usage_journal(path) == [Spending(scope, (USED,), scope.index) for scope in scopes]
    for scope in scopes:
        log.stored(scope)
    assert read_usage_journal(path) == []
    log.close()


def test_a_killed_process_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "child.spending"
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
    assert read_usage_journal(path) == [Spending(ONE, (USED,))]

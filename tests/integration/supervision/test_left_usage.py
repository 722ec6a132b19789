"""Usage that killed processes have left gets into the store that it belongs to, once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from doteval.core.budgets import Spent
from doteval.core.experiments import EvaluationSpec
from doteval.store import Store
from doteval.supervision import left_usage
from doteval.supervision.left_usage import OwnJournals, store_left_usage

# Spends on two rows, of which one has ended, and is killed.
KILLED = """
import os, signal, sys
from doteval.core.metering import UsageScope
from doteval.core.results import Usage
from doteval.supervision.left_usage import OwnJournals
from doteval.supervision.usage_journal import UsageJournal, usage_journal_path

journal = UsageJournal(usage_journal_path(OwnJournals().directory))
for index in (0, 1):
    journal.spent(UsageScope(sys.argv[1], index), Usage("m", requests=1, attempts=1, unfinished=1))
journal.spent(UsageScope(sys.argv[1], 1), Usage("m", unfinished=-1, prompt_tokens=10, cost=0.5))
journal.ended(UsageScope(sys.argv[1], 1), 7)
os.kill(os.getpid(), signal.SIGKILL)
"""
LEFT = Spent(requests=2, tokens=10, cost=0.5)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "temporary"


def is_killed(store: Store) -> None:
    """A process is killed while it runs rows of the store."""
    experiment = store.experiments.begin("x")
    evaluation = store.evaluations.begin(experiment, EvaluationSpec("eval_it.py", "eval_it", ("number",), {}))
    ended = subprocess.run([sys.executable, "-c", KILLED, evaluation.uid], check=False)
    assert ended.returncode == -9


def spent(store: Store) -> Spent:
    return store.usage.spent(store.experiments.find("x"))


def test_it_is_stored_once_however_many_look_and_when_they_are_killed(
    store: Store, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_killed(store)
    remove = shutil.rmtree
    # The first one is killed before it can remove the journal.
    monkeypatch.setattr(left_usage.shutil, "rmtree", lambda *_, **__: None)
    store_left_usage(store)
    monkeypatch.setattr(left_usage.shutil, "rmtree", remove)
    assert spent(store) == LEFT
    assert len(list(temporary.iterdir())) == 1
    barrier = threading.Barrier(4)

    def look() -> None:
        barrier.wait()
        store_left_usage(store)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spent(store) == LEFT
    assert list(temporary.iterdir()) == []


def test_it_waits_for_the_store_that_it_belongs_to(store: Store, temporary: Path, tmp_path: Path) -> None:
    is_killed(store)
    with Store.open(str(tmp_path / "another.db")) as another:
        store_left_usage(another)
    assert len(list(temporary.iterdir())) == 1
    store_left_usage(store)
    assert spent(store) == LEFT
    assert list(temporary.iterdir()) == []


def test_journals_of_live_processes_stay(store: Store, temporary: Path) -> None:
    journals = OwnJournals()
    store_left_usage(store)
    assert journals.directory.is_dir()
    journals.close(store, 1)
    assert list(temporary.iterdir()) == []

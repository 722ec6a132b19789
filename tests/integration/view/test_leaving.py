"""The end of the view while one of its pages is being read."""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from doteval.store import Store
from tests.support.comparisons import add_experiment


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_page_that_waits_for_the_store_is_answered_without_a_traceback(
    tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "results.db"
    with Store.open(str(path)) as store:
        add_experiment(store, "first", {"match": [True]})
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        # Without a write-ahead log, readers wait for a writer.
        assert other.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
        command = [sys.executable, "-m", "doteval", "view", "--storage", str(path), "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.search(r"View on http://127\.0\.0\.1:(\d+)/ ", line)
            assert found is not None, line + process.stderr.read()
            other.execute("BEGIN EXCLUSIVE")
            waiting, asking = (http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=60) for _ in range(2))
            waiting.request("GET", "/")
            # What comes later is answered, so that the page has begun to be read.
            asking.request("GET", "/health")
            assert asking.getresponse().status == 200
            process.send_signal(number)
            answer = waiting.getresponse()
            assert answer.status == 503
            assert "the view is ending" in answer.read().decode().lower()
            other.execute("ROLLBACK")
            assert process.wait(60) == 0
            assert "Traceback" not in process.stderr.read()
            for each in (waiting, asking):
                each.close()

"""Rows that hang: all others end while a process has slots, and no wait for a row that hangs is silent or unbounded."""

from __future__ import annotations

import signal
import sqlite3
import sys
import textwrap
from contextlib import closing

import pytest

from doteval.store import WorkerState
from tests.support.project import Process, Project, wait_until

# The first process that comes to a row after row 3 hangs in this one and in all that it begins from then on.
EVALUATION = """
import asyncio, contextlib, os, pathlib, time
from doteval import Score, foreach
from doteval.concurrency import SlidingWindow

HANGS = pathlib.Path(__file__).with_name("hangs")

def hangs(i):
    if i < 4:
        return False
    if not HANGS.exists():
        mine = HANGS.with_name(f"hangs-{os.getpid()}-{i}")
        mine.write_text(str(os.getpid()))
        # Fails if another row was first; nobody reads a file that is not yet written.
        with contextlib.suppress(FileExistsError):
            os.link(mine, HANGS)
    return HANGS.read_text() == str(os.getpid())

def hung():
    return len(list(HANGS.parent.glob("hung-*")))

@foreach("i", range(ROWS))
SYNC def eval_it(i):
    tell(f"begin {i}")
    if hangs(i):
        HANGS.with_name(f"hung-{i}").touch()
        tell("hung")
        AWAIT SLEEP(10_000)
    # The other process would run all rows before as many hang.
    while i > 3 and hung() < LEAST_HUNG:
        AWAIT SLEEP(0.01)
    AWAIT SLEEP(0.002)
    return Score("ok", True, ["accuracy"])
"""

LATER = """
from doteval import Score, foreach

@foreach("i", range(40))
def eval_later(i):
    tell(f"begin later {i}")
    return Score("ok", True, ["accuracy"])
"""

STUCK_FIXTURE = """
import time
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def model():
    tell("hung")
    time.sleep(10_000)

@foreach("i", range(4))
def eval_it(i, model):
    return Score("ok", True, ["accuracy"])
"""


def source(rows: int, *, is_async: bool = False, hung: int = 1) -> str:
    """An evaluation in which the process that does not hang waits, after row 3, until `hung` rows do."""
    text = EVALUATION.replace("ROWS", str(rows)).replace("LEAST_HUNG", str(hung))
    if is_async:
        return text.replace("SYNC", "async").replace("AWAIT", "await").replace("SLEEP", "asyncio.sleep")
    return text.replace("SYNC ", "").replace("AWAIT ", "").replace("SLEEP", "time.sleep")


def begun_twice(project: Project) -> list[str]:
    return [what for what, times in project.counts().items() if what.startswith("begin") and times > 1]


def blamed(project: Project) -> int:
    """How many rows are said to have ended a process."""
    with closing(sqlite3.connect(project.path / ".doteval" / "doteval.db")) as store:
        return int(store.execute("SELECT count(*) FROM attempt").fetchone()[0])


def stop_once(process: Process, number: signal.Signals, code: int) -> None:
    """Send one signal, and see that the command ends by itself."""
    process.send_signal(number)
    assert process.wait(60) == code


@pytest.mark.parametrize(
    ("concurrency", "is_async", "rows"),
    [
        (1, False, 200),
        pytest.param(1, False, 12, marks=pytest.mark.slow("the case with 200 rows shows the same")),
        (4, True, 300),
        pytest.param(4, False, 300, marks=pytest.mark.slow("as with async rows, but in threads")),
        pytest.param(32, True, 3000, marks=pytest.mark.slow("as with four rows in flight, but with many")),
    ],
)
def test_rows_behind_stuck_ones_run_in_the_other_process(
    project: Project, concurrency: int, is_async: bool, rows: int
) -> None:
    project.environment["DOTEVAL_DRAIN_TIMEOUT"] = "1"
    project.write("eval_it.py", source(rows, is_async=is_async, hung=concurrency))
    command = ("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--concurrency", str(concurrency))
    with project.started(*command) as process:
        wait_until(lambda: project.counts()["hung"] == concurrency, seconds=60, what="a process that hangs")
        wait_until(lambda: project.done() == rows - concurrency, seconds=90, what="the end of all other rows")
        stop_once(process, signal.SIGTERM, 143)
    assert begun_twice(project) == []
    assert blamed(project) == 0


def test_rows_of_another_evaluation_behind_a_stuck_one_run_in_the_other_process(project: Project) -> None:
    project.environment["DOTEVAL_DRAIN_TIMEOUT"] = "1"
    project.write("eval_it.py", source(30))
    project.write("eval_later.py", LATER)
    with project.started("submit", "eval_it.py", "eval_later.py", "--experiment", "x", "--workers", "2") as process:
        wait_until(lambda: project.counts()["hung"], seconds=60, what="a process that hangs")
        wait_until(lambda: project.done() == 69, seconds=90, what="the end of all other rows")
        stop_once(process, signal.SIGTERM, 143)
    assert begun_twice(project) == []


@pytest.mark.parametrize("concurrency", [1, pytest.param(4, marks=pytest.mark.slow("rows in threads of a worker"))])
def test_a_submission_that_is_stopped_says_how_long_it_waits_for_a_stuck_row(
    project: Project, concurrency: int
) -> None:
    project.environment["DOTEVAL_DRAIN_TIMEOUT"] = "12"
    project.write("eval_it.py", source(6))
    command = ("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    with project.started(*command, "--concurrency", str(concurrency)) as process:
        wait_until(lambda: project.counts()["hung"], seconds=60, what="a row that hangs")
        stop_once(process, signal.SIGTERM, 143)
    assert "rows in flight finish first, for at most 12 s; a second signal, such as Ctrl-C" in project.output()
    assert "1 worker process still to leave, waiting for row" in project.output()
    assert "To continue: doteval submit eval_it.py" in project.output()
    (worker,) = project.workers()
    assert worker.reason is not None
    assert "in flight: more than 12 s (drain_timeout) had passed" in worker.reason
    assert blamed(project) == 0
    assert project.done() >= 4
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--concurrency", "1")
    assert project.done() == 6
    # Nothing ran again but what hung.
    assert len(begun_twice(project)) == project.counts()["hung"]


def test_a_submission_that_is_stopped_does_not_wait_for_a_fixture_that_is_stuck(project: Project) -> None:
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "1"
    project.write("eval_it.py", STUCK_FIXTURE)
    with project.started("submit", "eval_it.py", "--experiment", "x", "--workers", "1") as process:
        wait_until(lambda: project.counts()["hung"], seconds=60, what="a fixture that hangs")
        stop_once(process, signal.SIGINT, 130)
    assert "the load of the session fixtures has not ended within 1 s" in project.output()


@pytest.mark.parametrize("signals", [1, 2])
def test_pytest_does_not_wait_without_end_for_rows_in_threads(project: Project, signals: int) -> None:
    """After the limit, or at once after a second Ctrl-C, it ends, although Python cannot end a thread."""
    project.environment["DOTEVAL_DRAIN_TIMEOUT"] = "2" if signals == 1 else "600"
    project.write("eval_it.py", source(6))
    command = ("-q", "-p", "no:cacheprovider", "eval_it.py", "--experiment", "x", "--concurrent", "2")
    with project.started(*command, module="pytest") as process:
        wait_until(lambda: project.counts()["hung"] == 2, seconds=60, what="rows that hang")
        process.send_signal(signal.SIGINT)
        wait_until(lambda: "a second signal" in project.output(), what="what the command waits for")
        if signals == 2:
            process.send_signal(signal.SIGINT)
        assert process.wait(60) == 2
    limit = "2" if signals == 1 else "600"
    assert f"stopping: rows in flight finish first, for at most {limit} s" in project.output()
    assert "eval_it: 2 rows are left: interrupted" in project.output()
    assert project.done() == 4


def test_run_does_not_wait_without_end_for_rows_in_threads(project: Project) -> None:
    project.environment["DOTEVAL_DRAIN_TIMEOUT"] = "2"
    project.write("eval_it.py", source(6))
    script = project.path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from doteval import run
        from eval_it import eval_it
        run(eval_it, experiment="x", concurrency=2)
        """)
    )
    with project.started(program=(sys.executable, "script.py")) as process:
        wait_until(lambda: project.counts()["hung"] == 2, seconds=60, what="rows that hang")
        process.send_signal(signal.SIGINT)
        process.wait(60)
    assert "not waiting any longer for 2 rows in flight; without a result, rows stay pending" in project.output()
    assert project.done() == 4


def test_celerys_own_command_leaves_without_a_stuck_row(project: Project, redis_url: str) -> None:
    """No supervisor ends it."""
    project.environment |= {"DOTEVAL_DRAIN_TIMEOUT": "2", "DOTEVAL_BROKER": redis_url}
    project.write("eval_it.py", source(6))
    command = ("-A", "doteval.worker.tasks", "worker", "--loglevel", "WARNING")
    with project.started(program=(sys.executable, "-m", "celery", *command)) as process:
        wait_until(lambda: any(each.state == "ready" for each in workers(project)), seconds=60, what="a worker")
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        wait_until(lambda: project.counts()["hung"], seconds=60, what="a row that hangs")
        stop_once(process, signal.SIGTERM, 0)
    (worker,) = (each for each in project.workers() if each.reason and "drain_timeout" in each.reason)
    assert "left without 1 row in flight" in str(worker.reason)
    assert project.done() == 4


def workers(project: Project) -> list[WorkerState]:
    return project.workers() if (project.path / ".doteval" / "doteval.db").exists() else []

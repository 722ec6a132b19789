"""Teardowns and loads never end: results are kept, the fixture is named, and no process waits for ever."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.support.fault_services import RedisServer
from tests.support.processes import is_alive
from tests.support.project import Project, leftover_processes, wait_until
from tests.support.troubleshooting import assert_shown

# `time.sleep` cannot be interrupted outside the main thread; the other two can.
WAYS = {"sleep": "time.sleep(3600)", "loop": "while True: time.sleep(0.01)", "await": "await asyncio.sleep(3600)"}

EVALUATION = """
import asyncio, time
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="SCOPE")
def sticky():
    yield 1
    tell("stuck")
    HANG

@foreach("i", [(i,) for i in range(20)])
def eval_it(i, sticky):
    tell(f"begin {i}")
    return Score("ok", True, ["accuracy"])
"""

AFTER = """
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(20)])
def eval_after(i):
    tell(f"begin after {i}")
    return Score("ok", True, ["accuracy"])
"""


def counted(project: Project, rows: int) -> int:
    """Check that each row has one result. Returns the number of executions beyond one per row."""
    records = [record for each in project.records("x").values() for record in each]
    assert {record.outcome.status for record in records} == {"done"}
    begun = sum(count for what, count in project.counts().items() if what.startswith("begin "))
    print(f"lost: {rows - len(records)} of {rows} rows; executed again: {begun - rows}")
    assert len(records) == rows
    assert leftover_processes(project.path) == []
    return begun - rows


def test_a_session_fixture_at_the_end_of_a_submission(project: Project) -> None:
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    project.write("eval_it.py", EVALUATION.replace("SCOPE", "session").replace("HANG", WAYS["sleep"]))
    begin = time.monotonic()
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert time.monotonic() - begin < 45
    assert_shown("fixture-stuck", done.stdout + done.stderr)
    assert counted(project, 20) == 0
    (worker,) = project.workers()
    assert worker.reason is not None
    assert "was stuck: the teardown of the fixture 'sticky'" in worker.reason


def test_an_async_session_fixture(project: Project) -> None:
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    source = EVALUATION.replace("SCOPE", "session").replace("def sticky", "async def sticky")
    project.write("eval_it.py", source.replace("HANG", WAYS["await"]))
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert "the teardown of the fixture 'sticky' (session) has not ended within 2 s" in done.stdout + done.stderr
    assert counted(project, 20) == 0


STUBBORN = """
import asyncio
from doteval import Score, foreach

async def stubborn():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            tell("not cancelled")

@foreach("i", [(i,) for i in range(20)])
async def eval_it(i):
    tell(f"begin {i}")
    asyncio.get_running_loop().create_task(stubborn())
    return Score("ok", True, ["accuracy"])
"""


def test_a_task_that_ignores_cancellation(project: Project) -> None:
    """The task belongs to no fixture, but the process waits for it as well."""
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    project.write("eval_it.py", STUBBORN)
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert "the end of the pytest session has not ended within 2 s" in done.stdout + done.stderr
    assert counted(project, 20) == 0


def test_a_module_fixture_in_the_middle(project: Project) -> None:
    """The process that should go on with another module is replaced, and the new one does."""
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    project.write("eval_a.py", EVALUATION.replace("SCOPE", "module").replace("HANG", WAYS["sleep"]))
    project.write("eval_b.py", AFTER)
    done = project.run("submit", "eval_a.py", "eval_b.py", "--experiment", "x", "--workers", "1")
    assert "the teardown of the fixture 'sticky' (module) has not ended within 2 s" in done.stdout + done.stderr
    assert counted(project, 40) == 0


@pytest.mark.parametrize("define", ["def", "async def"])
def test_a_function_fixture_under_a_row_timeout(project: Project, define: str) -> None:
    """A teardown that can be interrupted is: the row keeps its result, with a note, and the process lives."""
    source = EVALUATION.replace("SCOPE", "function").replace("def sticky", f"{define} sticky")
    project.write("eval_it.py", source.replace("HANG", WAYS["loop" if define == "def" else "await"]))
    options = ("--workers", "1", "--row-timeout", "0.3")
    project.run("submit", "eval_it.py", "--experiment", "x", *options)
    assert counted(project, 20) == 0
    for record in project.records("x")["eval_it"]:
        assert record.outcome.error is not None
        assert record.outcome.error.error_class == "timeout"
        assert "at the teardown of a fixture: it took longer than 0.3 s" in record.outcome.error.message
    assert len(project.workers()) == 1


def test_a_function_fixture_that_cannot_be_interrupted(project: Project) -> None:
    """One row's teardown hangs in C code: its process is replaced, and the results of rows beside it are kept."""
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    source = EVALUATION.replace("SCOPE", "function").replace("\ndef eval_it", "\nasync def eval_it")
    # The teardown runs on the main thread, where a signal would interrupt it.
    blocked = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])"
    hang = f"if open('events.log').read().count('stuck') == 7: {blocked}; time.sleep(3600)"
    project.write("eval_it.py", source.replace("HANG", hang))
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--row-timeout", "1")
    assert "the teardown of the fixture 'sticky' (function) has not ended within 2 s" in done.stdout + done.stderr
    # Rows that had ended beside it are stored too.
    assert counted(project, 20) == 0
    notes = [record.outcome.error.message for record in project.records("x")["eval_it"] if record.outcome.error]
    assert notes
    assert all("'sticky' (function) has not ended within 2 s" in note for note in notes)


LEFT_BEHIND = """
import threading, time
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(20)])
def eval_it(i):
    tell(f"begin {i}")
    # Not a daemon thread: Python would wait for it at exit.
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return Score("ok", True, ["accuracy"])
"""


def test_threads_that_rows_leave_behind(project: Project) -> None:
    project.write("eval_it.py", LEFT_BEHIND)
    begin = time.monotonic()
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    # Without waiting as long as a fixture's teardown may take.
    assert time.monotonic() - begin < 45
    assert counted(project, 20) == 0


LOADING = """
import time
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def model():
    tell("loading")
    time.sleep(3600)

@foreach("i", [(i,) for i in range(20)])
def eval_it(i, model):
    return Score("ok", True, ["accuracy"])
"""


def test_a_load_that_never_ends_when_its_service_is_killed(project: Project, broker: RedisServer) -> None:
    """The processes must end themselves, since nothing else would end them."""
    project.environment["DOTEVAL_TEARDOWN_TIMEOUT"] = "2"
    project.write("eval_it.py", LOADING)
    with project.started("worker", ".", "--processes", "2") as service:
        wait_until(lambda: project.counts()["loading"] == 2, what="two worker processes that load")
        os.kill(service.pid, signal.SIGKILL)
        service.wait()
    loading = [event.pid for event in project.events()]
    wait_until(lambda: not any(is_alive(pid) for pid in loading), what="the end of the worker processes")
    assert "the load of the session fixtures has not ended within 2 s" in project.output()
    for worker in project.workers():
        assert worker.reason == "was stuck: the load of the session fixtures has not ended within 2 s"

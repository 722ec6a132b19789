"""Worker processes that cannot start: each says why, and ends."""

from __future__ import annotations

import json
import re
import sys
import urllib.error
import urllib.request
from typing import Any

from tests.support.project import Project, leftover_processes, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATION = """
from doteval import Score, foreach

@foreach("i", [(1,)])
def eval_it(i):
    return Score("ok", True, ["accuracy"])
"""

# Files of at most so many bytes: enough for a result store that is there, and less than one of the journals takes.
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (240_000, 240_000))
sys.argv = ["doteval", *sys.argv[1:]]
runpy.run_module("doteval", run_name="__main__")
"""


def test_a_worker_process_without_room_for_its_logs_says_so_and_ends(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    with project.store():
        pass
    command = [sys.executable, "-c", LIMITED, "submit", "eval_it.py", "--experiment", "x", "--workers", "1"]
    with project.started(program=command):
        wait_until(lambda: "with TMPDIR" in project.output(), what="what is wrong, and what to do")
        assert "cannot note what it runs in" in project.output()
    wait_until(lambda: leftover_processes(project.path) == [], what="the processes' end")


# What nobody foresaw, in a worker process that begins.
BROKEN = """
import runpy, sys
from doteval.worker.process import WorkerProcess
def run(self, on_ready):
    raise OSError
WorkerProcess.run = run
sys.argv = ["doteval.worker", "broken@%h", "WARNING"]
runpy.run_module("doteval.worker", run_name="__main__")
"""


def test_a_worker_process_that_cannot_start_for_whatever_reason_ends(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    with project.started(program=[sys.executable, "-c", BROKEN]) as process:
        assert process.wait(120) == 70
    assert "could not start" in project.output()
    assert "OSError" in project.output()


# A plugin of the project that works everywhere but in worker processes, which have this variable.
BROKEN_IN_WORKERS = """
import os

if "DOTEVAL_WORKER" in os.environ:
    print("looking for the driver", flush=True)
    raise RuntimeError("the driver is missing")
"""
# One that takes the process with it, before it could say anything.
DEADLY_IN_WORKERS = """
import os

if "DOTEVAL_WORKER" in os.environ:
    os.write(2, b"fatal: the driver is missing\\n")
    os.abort()
"""
# One that works at the third try.
BROKEN_AT_FIRST = """
import os
from pathlib import Path

if "DOTEVAL_WORKER" in os.environ:
    tries = Path(__file__).with_name("tries")
    with tries.open("a") as file:
        file.write("x")
    if tries.stat().st_size < 3:
        raise RuntimeError("the driver is missing")
"""


def test_submit_ends_when_no_worker_process_can_start(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    project.write("conftest.py", BROKEN_IN_WORKERS)
    ended = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2", check=5)
    assert "none of 2 worker processes became ready in 3 tries" in ended.stderr
    # The last lines that they printed.
    assert "the driver is missing" in ended.stderr
    (evaluation,) = project.json("show", "x")["evaluations"]
    assert evaluation["status"] == "failed"
    assert "became ready" in evaluation["reason"]
    assert leftover_processes(project.path) == []
    # Mended, it goes on.
    project.write("conftest.py", "")
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--allow-changed")
    assert project.done() == 1


def test_submit_ends_when_worker_processes_die_before_they_can_say_why(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    project.write("conftest.py", DEADLY_IN_WORKERS)
    ended = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", check=5)
    assert "the worker process did not become ready in 3 tries: it was killed by SIGABRT" in ended.stderr
    assert "fatal: the driver is missing" in ended.stderr
    assert_shown("workers-cannot-start", ended.stderr)


def test_retry_ends_when_no_worker_process_can_start(project: Project) -> None:
    project.write("eval_it.py", EVALUATION.replace('return Score("ok", True, ["accuracy"])', 'raise ValueError("no")'))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    broken = [sys.executable, "-c", BROKEN_WORKERS_OF_A_COMMAND, "retry", "x", "--workers", "1"]
    with project.started(program=broken) as process:
        assert process.wait(120) == 5
    assert "the worker process did not become ready in 3 tries" in project.output()
    assert "no such command" in project.output()


# The doteval command with worker processes that are another program.
BROKEN_WORKERS_OF_A_COMMAND = """
import runpy, sys
from doteval.supervision import supervisor

def command(options, number, log_level):
    return [sys.executable, "-m", "json.tool", "no such command"]

supervisor.Supervisor.__init__.__kwdefaults__["command"] = command
sys.argv = ["doteval", *sys.argv[1:]]
runpy.run_module("doteval", run_name="__main__")
"""


def test_a_worker_process_that_becomes_ready_at_the_third_try_runs_the_rows(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    project.write("conftest.py", BROKEN_AT_FIRST)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    assert project.done() == 1


# There is time to look between the moments at which its supervisor and the store hear that a worker process is ready.
SLOW_TO_REPORT = """
import time
from doteval.worker import lifecycle

write = lifecycle.write_start_report

def write_late(*report):
    time.sleep(1)
    write(*report)

lifecycle.write_start_report = write_late
"""


def test_a_worker_service_goes_on_trying_and_says_why(project: Project, redis_url: str) -> None:
    project.write("eval_it.py", BROKEN_IN_WORKERS + EVALUATION)
    service = ["worker", "eval_it.py", "--broker", redis_url, "--processes", "1", "--health-port", "0"]
    with project.started(*service) as process:
        address = wait_until(lambda: re.search(r"http://\S+(?=/health)", project.output()), what="its address")[0]

        def ready() -> Any:
            try:
                with urllib.request.urlopen(f"{address}/ready", timeout=10) as reply:
                    return json.load(reply)
            except urllib.error.HTTPError as error:
                return json.load(error)

        wait_until(lambda: any(each["tries"] > 3 for each in ready()["failed_starts"]), what="a fourth try")
        (failed,) = ready()["failed_starts"]
        assert failed["name"] == "worker-1"
        assert failed["reason"] == "eval_it.py cannot be collected: RuntimeError"
        assert process.poll() is None
        with project.store() as store:
            store.experiments.begin("x")
        # The next try fails after the experiment began.
        (status,) = wait_until(
            lambda: project.json("status", "x")["failed_starts"], what="a failed start in the status"
        )
        assert status["service"].startswith("worker-1@")
        assert "could not start" in status["reason"]
        # Mended, it works.
        project.write("eval_it.py", SLOW_TO_REPORT + EVALUATION)
        answer = wait_until(lambda: (now := ready())["ready"] and now, what="a ready worker process")
        assert answer["failed_starts"] == []


# The fixture can be loaded by one process only. Rows wait for the test.
LOADED_ONCE = """
import pathlib, time
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def model():
    try:
        pathlib.Path("loaded").touch(exist_ok=False)
    except FileExistsError:
        raise RuntimeError("cannot log in with hunter2") from None

@foreach("i", [(n,) for n in range(50)])
def eval_it(i, model):
    while not pathlib.Path("go").exists():
        time.sleep(0.05)
    return Score("ok", True, ["accuracy"])
"""


def test_a_worker_process_that_leaves_for_want_of_a_fixture_names_it(project: Project) -> None:
    project.write("eval_it.py", LOADED_ONCE)
    with project.started("submit", "eval_it.py", "--experiment", "x", "--workers", "2") as process:
        wait_until(lambda: "; the next starts in" in project.output(), what="the end of one process")
        project.write("go", "")
        assert process.wait(120) == 0
    found = re.search(r"worker process \d+ (left.*?); the next starts in", project.output())
    assert found is not None
    assert found[1] == "left: it cannot run eval_it: the fixture 'model' raised RuntimeError"

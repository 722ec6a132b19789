"""Worker processes that cannot start: each says why, and ends."""

from __future__ import annotations

import sys

from tests.support.project import Project, leftover_processes, wait_until

EVALUATION = """
from doteval import Score, foreach

@foreach("i", [(1,)])
def eval_it(i):
    return Score("ok", True, ["accuracy"])
"""

# Files of at most so many bytes, which is less than a flight log takes.
LIMITED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
sys.argv = ["doteval", *sys.argv[1:]]
runpy.run_module("doteval", run_name="__main__")
"""


def test_a_worker_process_without_room_for_its_logs_says_so_and_ends(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    command = [sys.executable, "-c", LIMITED, "submit", "eval_it.py", "--experiment", "x", "--workers", "1"]
    with project.started(program=command):
        wait_until(lambda: "cannot note what it runs in" in project.output(), what="what is wrong", seconds=30)
        assert "TMPDIR" in project.output()
    wait_until(lambda: leftover_processes(project.path) == [], what="the processes' end")


# What nobody foresaw, in a worker process that begins.
BROKEN = """
import runpy, sys
from doteval.worker.process import WorkerProcess
def start(self):
    raise OSError
WorkerProcess.start = start
sys.argv = ["doteval.worker", "broken@%h", "WARNING"]
runpy.run_module("doteval.worker", run_name="__main__")
"""


def test_a_worker_process_that_cannot_start_for_whatever_reason_ends(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    with project.started(program=[sys.executable, "-c", BROKEN]) as process:
        assert process.wait(60) == 70
    assert "could not start" in project.output()
    assert "OSError" in project.output()

"""Worker processes die in every way that there is."""

from __future__ import annotations

import os
import random
import signal
import subprocess

import pytest

from tests.e2e.project import Project, leftover_processes, wait_until
from tests.faults.evaluation import CONCURRENCY, check, reached, ready, some_moment, write_evaluation
from tests.faults.services import RedisServer


def kill_one(project: Project, service: subprocess.Popen[str], seed: int) -> int:
    live = [worker for worker in project.workers() if worker.left_at is None]
    os.kill(random.Random(seed).choice(live).info.pid, signal.SIGKILL)
    return 1


def kill_all(project: Project, service: subprocess.Popen[str], seed: int) -> int:
    live = [worker for worker in project.workers() if worker.left_at is None]
    for worker in live:
        os.kill(worker.info.pid, signal.SIGKILL)
    return len(live)


@pytest.mark.parametrize("fault", [kill_one, kill_all])
def test_killed_worker_processes(project: Project, broker: RedisServer, fault, seed: int) -> None:  # type: ignore[no-untyped-def]
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        killed = fault(project, None, seed)
        project.run("watch", "x")
    check(project, "x", in_flight=killed * CONCURRENCY)
    assert "was killed by SIGKILL" in project.output()


@pytest.mark.parametrize("whom", ["service", "group"])
def test_a_killed_service(project: Project, broker: RedisServer, whom: str, seed: int) -> None:
    """The service alone, whose worker processes then leave by themselves, or everything at once."""
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2") as service:
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        workers = [worker.info.pid for worker in project.workers()]
        os.kill(service.pid, signal.SIGKILL)
        if whom == "group":
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
        service.wait()
        wait_until(lambda: leftover_processes(project.path) == [], what="the worker processes' end")
    with project.started("worker", ".", "--processes", "2"):
        project.run("watch", "x")
    check(project, "x", in_flight=2 * CONCURRENCY if whom == "group" else 0)


def test_sigterm_during_a_long_row(project: Project, broker: RedisServer) -> None:
    write_evaluation(project, rows=4, seconds=4.0)
    with project.started("worker", ".", "--processes", "1") as service:
        ready(project, 1)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach", "--rows-per-task", "1")
        wait_until(lambda: any(what.startswith("begin") for what in project.counts()), what="a row in flight")
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) == 0
    counts = project.counts()
    assert counts["-model"] == 1
    assert sum(what.startswith("begin") for what in counts) == sum(what.startswith("end") for what in counts)
    with project.started("worker", ".", "--processes", "1"):
        project.run("watch", "x")
    check(project, "x", rows=4, in_flight=0)


POISON = """
import os, time, ctypes
import pytest
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(40)])
async def eval_poison(i):
    tell(f"begin {i}")
    if i == 7:
        os._exit(3)
    if i == 23:
        ctypes.string_at(0)
    import asyncio
    await asyncio.sleep(0.02)
    return Score("ok", True, ["accuracy"])
"""


def test_poison_rows_are_given_up_and_no_other_row_is_blamed(project: Project) -> None:
    project.write("eval_it.py", POISON)
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2", timeout=120)
    records = project.records("x")["eval_poison"]
    failed = {record.row.index: record.outcome.error for record in records if record.outcome.status == "failed"}
    assert len(records) == 40
    assert set(failed) == {7, 23}
    assert {error.error_class for error in failed.values() if error} == {"crash"}
    assert "exit code 3" in failed[7].message
    assert "SIGSEGV" in failed[23].message
    assert project.counts()["begin 7"] == project.counts()["begin 23"] == 2
    assert "completed" in done.stdout

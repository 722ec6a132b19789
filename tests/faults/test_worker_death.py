"""Worker processes die in many ways, and no row is lost."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support.fault_evaluation import check, freeze, reached, ready, some_moment, write_evaluation
from tests.support.fault_services import Broker, on_both_brokers
from tests.support.processes import stat_fields
from tests.support.project import Project, leftover_processes, wait_until
from tests.support.troubleshooting import assert_shown


@on_both_brokers
@pytest.mark.parametrize("whom", ["one", "all"])
def test_killed_worker_processes(project: Project, broker: Broker, whom: str, seed: int) -> None:
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        live = [worker.info.pid for worker in project.workers() if worker.left_at is None]
        killed = [random.Random(seed).choice(live)] if whom == "one" else live
        in_flight = freeze(project, killed)
        kill(killed)
        project.run("watch", "x")
    check(project, "x", in_flight=in_flight)
    assert "was killed by SIGKILL" in project.output()


@on_both_brokers
@pytest.mark.parametrize("whom", ["service", "group"])
def test_a_killed_service(project: Project, broker: Broker, whom: str, seed: int) -> None:
    """Kills the service alone, whose worker processes then leave by themselves, or all processes at once."""
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2") as service:
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        workers = [worker.info.pid for worker in project.workers()]
        in_flight = freeze(project, workers) if whom == "group" else 0
        kill([service.pid, *(workers if whom == "group" else [])])
        service.wait()
        wait_until(lambda: leftover_processes(project.path) == [], what="the worker processes' end")
    with project.started("worker", ".", "--processes", "2"):
        project.run("watch", "x")
    check(project, "x", in_flight=in_flight)


def kill(pids: Sequence[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_killed_fork_server(project: Project, broker: Broker, seed: int) -> None:
    """Its worker processes leave in order, and the next ones start without a fork server."""
    write_evaluation(project)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        (fork_server,) = {parent_of(worker.info.pid) for worker in project.workers()}
        os.kill(fork_server, signal.SIGKILL)
        project.run("watch", "x")
        wait_until(lambda: project.counts()["-model"] == 2, what="the end of those that it had forked")
        said = "ended for an unknown reason; the next starts in"
        wait_until(lambda: project.output().count(said) == 2, what="a word about both")
    check(project, "x", in_flight=0)


def parent_of(pid: int) -> int:
    return int(stat_fields(Path(f"/proc/{pid}"))[1])


def test_sigterm_during_a_long_row(project: Project, broker: Broker) -> None:
    write_evaluation(project, rows=4, seconds=4.0)
    with project.started("worker", ".", "--processes", "1") as service:
        ready(project, 1)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach", "--rows-per-task", "1")
        wait_until(lambda: any(what.startswith("begin") for what in project.counts()), what="a row in flight")
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
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
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2")
    records = project.records("x")["eval_poison"]
    failed = {record.row.index: record.outcome.error for record in records if record.outcome.status == "failed"}
    assert len(records) == 40
    assert set(failed) == {7, 23}
    assert {error.error_class for error in failed.values() if error} == {"crash"}
    assert "exit code 3" in failed[7].message
    assert "SIGSEGV" in failed[23].message
    assert project.counts()["begin 7"] == project.counts()["begin 23"] == 2
    assert "completed" in done.stdout
    # The stack of the thread that crashed, which shows the line of the row, and not those of all threads.
    stacks = done.stdout + done.stderr
    assert "Current thread" in stacks or "Fatal Python error" in stacks
    assert "in eval_poison" in stacks
    assert "\nThread 0x" not in stacks


# The kernel's out-of-memory killer uses the same signal.
KILLED = """
import asyncio, os, signal
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(30)])
async def eval_killed(i):
    tell(f"begin {i}")
    await asyncio.sleep(0.02)
    if i == 7 and kills_so_far() < KILLS:
        tell("death")
        os.kill(os.getpid(), signal.SIGKILL)
    return Score("ok", True, ["accuracy"])

def kills_so_far():
    return sum(line.endswith(" death") for line in open("events.log").read().splitlines())
"""


def test_a_row_killed_for_lack_of_memory_says_so_and_a_retry_resets_its_crashes(project: Project) -> None:
    """The test sends the signal of the kernel's out-of-memory killer itself.

    Real memory pressure needs a cgroup of the test's own, which only some machines grant; what doteval sees of it
    is the same: a process that is gone, by signal 9.
    """
    project.write("eval_it.py", KILLED.replace("KILLS", "3"))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--max-crashes", "2")
    records = project.records("x")["eval_killed"]
    assert len(records) == 30
    (failed,) = [record for record in records if record.outcome.status == "failed"]
    assert failed.row.index == 7
    assert failed.outcome.error is not None
    assert failed.outcome.error.error_class == "crash"
    assert_shown("worker-killed", f"{failed.outcome.error.type}: {failed.outcome.error.message}")
    # The third crash is the first one since the retry, so the row runs once more, and succeeds.
    project.run("retry", "x", "--workers", "1")
    counts = project.counts()
    assert counts["death"] == 3
    assert counts["begin 7"] == 4
    records = project.records("x")["eval_killed"]
    assert {record.outcome.status for record in records} == {"done"}
    again = sum(count for what, count in counts.items() if what.startswith("begin ")) - 30
    print(f"lost: {30 - len(records)} of 30 rows; executed again: {again}")


LIMITED = """
import resource
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def little_memory():
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    # Room for the address space that threads reserve and never use.
    resource.setrlimit(resource.RLIMIT_AS, (used + 8 * 2**30, resource.RLIM_INFINITY))

@foreach("i", [(i,) for i in range(30)])
DEFINE eval_greedy(i, little_memory):
    tell(f"begin {i}")
    if i == 7:
        bytearray(64 * 2**30)
    return Score("ok", True, ["accuracy"])
"""


@pytest.mark.parametrize("define", ["def", "async def"])
def test_a_row_that_gets_no_memory_fails_alone(project: Project, define: str) -> None:
    """With a limit of the process itself, Python raises MemoryError and the process lives."""
    project.write("eval_it.py", LIMITED.replace("DEFINE", define))
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    records = project.records("x")["eval_greedy"]
    assert [record.row.index for record in records if record.outcome.status != "done"] == [7]
    assert records[7].outcome.error is not None
    assert records[7].outcome.error.type == "MemoryError"
    begun = sum(what.startswith("begin ") for what in project.counts().elements())
    print(f"lost: {30 - len(records)} of 30 rows; executed again: {begun - 30}")
    assert (len(records), begun) == (30, 30)
    assert len({worker.info.pid for worker in project.workers()}) == 1

"""Machines with one hostname, whose processes have the same pids: each process is only itself."""

from __future__ import annotations

import os
import signal
import time

import pytest

from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.store import WorkerState
from tests.support.database_clock import DatabaseClock
from tests.support.fault_evaluation import CONCURRENCY, begun_rows, check, let_go, reached, ready, write_evaluation
from tests.support.fault_services import RedisServer
from tests.support.lookalikes import HOSTNAME, inside, need_namespaces, started_alike
from tests.support.processes import is_alive
from tests.support.project import Project, suspend, wait_until

ROWS = 120
HELD = 60
PYTEST = ("-q", "-p", "no:cacheprovider", "eval_it.py", "--experiment", "x")


@pytest.fixture(autouse=True)
def namespaces() -> None:
    need_namespaces()


@pytest.mark.parametrize("storage", ["sqlite", "postgresql"])
def test_one_of_two_services_that_look_alike_loses_its_process(
    project: Project, broker: RedisServer, storage: str, request: pytest.FixtureRequest
) -> None:
    """A worker process is killed. On PostgreSQL, the clock of the database is set by hours all the time."""
    clock = None
    if storage == "postgresql":
        clock = DatabaseClock(request.getfixturevalue("postgres_url"))
        project.environment["DOTEVAL_STORAGE"] = clock.url
    write_evaluation(project, rows=ROWS, held=HELD)
    worker = ("worker", ".", "--processes", "1", "--concurrency", str(CONCURRENCY))
    with started_alike(project, "doteval", *worker) as one, started_alike(project, "doteval", *worker):
        ready(project, 2)
        live = {each.id: (each.info.service, each.info.hostname, each.info.pid) for each in project.workers()}
        assert len(live) == 2
        (known,) = set(live.values())
        assert known[1] == HOSTNAME
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, HELD // 2)
            for hours in (3, -3) if clock is not None else ():
                set_clock(project, clock, hours)
            reached(project, HELD)
            wait_until(lambda: all(each.holding for each in project.workers()), what="rows held by both")
            victim = inside(one)[known[2]]
            os.kill(victim, signal.SIGKILL)
            killed_at = time.monotonic()
            if clock is not None:
                set_clock(project, clock, 5)
            begun = begun_rows(project)
            wait_until(lambda: begun_rows(project) > begun, what="rows that are run again")
            print(f"rows of the killed process were run again after {time.monotonic() - killed_at:.1f} s")
            let_go(project)
            assert submitter.wait(120) == 0, project.output()
        ended = {each.id: each.end_cause for each in project.workers() if each.left_at is not None}
        (dead,) = ended
        assert ended[dead] == "killed"
        other = next(each for each in project.workers() if each.id in live and each.id != dead)
        assert (other.state, other.left_at) == ("ready", None)
        shown = project.json("status", "x")
        if clock is None:
            # By a clock that was set back, it died before the experiment began.
            dead_now = [(each["pid"], each["reason"]) for each in shown["dead_workers"]]
            assert dead_now == [(known[2], "was killed by SIGKILL")]
        assert {each["state"] for each in shown["workers"]} <= {"ready", "loading"}
    assert "registered anew" not in project.output()
    check(project, "x", rows=ROWS, in_flight=CONCURRENCY)


def set_clock(project: Project, clock: DatabaseClock, hours: float) -> None:
    """Set the clock of the database, and wait for the heartbeats after that."""
    before = {each.id: each.beat_at for each in present(project)}
    clock.set_ahead(hours)
    wait_until(
        lambda: all(each.beat_at != before.get(each.id) for each in present(project)),
        what="heartbeats after the clock was set",
    )


def present(project: Project) -> list[WorkerState]:
    return [worker for worker in project.workers() if worker.left_at is None]


def test_a_worker_process_that_was_taken_for_dead_goes_on(project: Project, broker: RedisServer) -> None:
    """A report of a death ends it in the store while its rows are in flight, as a supervisor of an old release does."""
    write_evaluation(project, rows=ROWS, held=HELD)
    with project.started("worker", ".", "--processes", "1", "--concurrency", str(CONCURRENCY)):
        ready(project, 1)
        with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
            reached(project, HELD)
            for _ in range(2):
                (worker,) = project.workers()
                with project.store() as store:
                    store.workers.end(worker.id, reason="was killed by SIGKILL")
                wait_until(lambda: project.workers()[0].left_at is None, what="its new registration")
                (again,) = project.workers()
                assert again.token != worker.token
                wait_until(lambda: project.workers()[0].holding, what="the rows that it holds")
            let_go(project)
            assert submitter.wait(120) == 0, project.output()
        assert project.json("status", "x")["dead_workers"] == []
    said = "the store said that this process is dead (was killed by SIGKILL); it has registered anew and goes on"
    assert project.output().count(said) == 2
    check(project, "x", rows=ROWS, in_flight=0)


@pytest.mark.parametrize("fate", ["killed", "stands still"])
def test_of_two_pytest_commands_that_look_alike_one_runs_the_rows(project: Project, fate: str) -> None:
    """The other one waits, although it sees no process with that pid; until the first is dead, or so it seems."""
    write_evaluation(project, rows=ROWS, held=HELD)
    with started_alike(project, "pytest", *PYTEST) as first:
        reached(project, HELD)
        with started_alike(project, "pytest", *PYTEST) as second:
            # Process 1 is both, in its own namespace.
            waits = f"is being run by pytest (process 1 on {HOSTNAME})"
            wait_until(lambda: waits in project.output(), what="the waiting of the second one")
            victim = inside(first)[1]
            begun = begun_rows(project)
            if fate == "killed":
                os.kill(victim, signal.SIGKILL)
                first.wait()
            else:
                suspend([victim])
            assert [each.left_at for each in project.workers()] == [None, None]
            stopped_at = time.monotonic()
            wait_until(lambda: begun_rows(project) > begun, what="the second one's rows")
            print(f"taken over after {time.monotonic() - stopped_at:.1f} s; dead after {DEAD_AFTER_SECONDS:g} s")
            if fate == "stands still":
                os.kill(victim, signal.SIGCONT)
                wait_until(lambda: project.workers()[0].left_at is None, what="the return of the first one")
            let_go(project)
            assert second.wait(120) == 0, project.output()
        if fate == "stands still":
            assert first.wait(120) == 1
            assert f"pytest (process 1 on {HOSTNAME}) has taken over the rows" in project.output()
        assert not is_alive(victim)
    check(project, "x", rows=ROWS, in_flight=CONCURRENCY)

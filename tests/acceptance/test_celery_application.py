"""`celery -A workers worker`: Celery's own command starts worker processes, from what operators deploy."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.support.project import Project, leftover_processes, wait_until

ROOT = Path(__file__).parents[2]
CELERY = Path(sys.executable).with_name("celery")
EVALUATION = """
import ctypes, threading, time
from pathlib import Path
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model():
    tell("+model")
    yield "m"
    tell("-model")

@foreach("number", [(number,) for number in range(100)])
def eval_plain(number, model):
    return Result(exact_match(number, number))

@foreach("number", [(number,) for number in range(10)])
def eval_blocked(number):
    # A wait in C code that no signal ends.
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    def release():
        while not Path("go").exists():
            time.sleep(0.01)
        libc.pthread_mutex_unlock(mutex)
    libc.pthread_mutex_lock(mutex)
    threading.Thread(target=release).start()
    tell("blocked")
    libc.pthread_mutex_lock(mutex)
    return exact_match(threading.current_thread() is threading.main_thread(), True)
"""


@pytest.fixture
def remote(project: Project, redis_url: str) -> Project:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("evals/eval_it.py", EVALUATION)
    (project.path / "evals" / "pytest.ini").write_text("[pytest]\n")
    return project


def wait_for_worker(project: Project) -> None:
    def is_ready() -> bool:
        return [each.state for each in project.workers()] == ["ready"]

    # Celery's command imports more than `doteval worker`, Flower too.
    wait_until(is_ready, what="a ready worker process", seconds=120)


def test_celery_serves_the_files_that_the_environment_names(remote: Project) -> None:
    # As an operator has it: the directory `workers` of a checkout, and doteval installed.
    remote.environment |= {"DOTEVAL_PATH": "evals", "PYTHONPATH": str(ROOT)}
    with remote.started(program=[str(CELERY), "-A", "workers", "worker", "-n", "plain@%h"]) as worker:
        wait_for_worker(remote)
        broker = ("--broker", remote.environment["DOTEVAL_BROKER"])
        remote.run("submit", "evals/eval_it.py::eval_plain", *broker, "--experiment", "x")
        remote.run("submit", "evals/eval_it.py::eval_blocked", *broker, "--experiment", "y", "--detach")
        wait_until(lambda: remote.counts()["blocked"] == 1, what="a blocked row")
        # Celery's own way to stop it: rows in flight end, and fixtures are torn down.
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: remote.workers()[0].state == "draining", what="the worker process leaving")
        assert remote.records("y")["eval_blocked"] == []
        (remote.path / "go").touch()
        assert worker.wait(120) == 0
    assert len(remote.records("x")["eval_plain"]) == 100
    assert [record.outcome.scores[0].value for record in remote.records("y")["eval_blocked"]] == [True]
    assert remote.counts() == {"+model": 1, "-model": 1, "blocked": 1}
    assert [each.state for each in remote.workers()] == ["left"]
    assert leftover_processes(remote.path) == []


def test_the_library_has_the_application_where_the_directory_is_not_at_hand(remote: Project) -> None:
    # A project's own package of that name, in the current directory, which Celery's command looks into first.
    remote.write("workers/__init__.py", "mine = True\n")
    remote.environment["DOTEVAL_PATH"] = "evals"
    with remote.started(program=[str(CELERY), "-A", "doteval.worker", "worker", "-n", "plain@%h"]):
        wait_for_worker(remote)
        remote.run("submit", "evals/eval_it.py::eval_plain", "--experiment", "x")
    assert len(remote.records("x")["eval_plain"]) == 100


@pytest.mark.faults
@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]], ids=["quit", "interrupt"])
def test_a_worker_process_leaves_without_its_rows_in_flight(remote: Project, numbers: list[signal.Signals]) -> None:
    remote.environment["DOTEVAL_PATH"] = "evals"
    with remote.started(program=[str(CELERY), "-A", "doteval.worker", "worker", "-n", "plain@%h"]) as worker:
        wait_for_worker(remote)
        remote.run("submit", "evals/eval_it.py::eval_blocked", "--experiment", "y", "--detach")
        wait_until(lambda: remote.counts()["blocked"] == 1, what="a blocked row")
        *first, last = numbers
        for number in first:
            worker.send_signal(number)
            wait_until(lambda: remote.workers()[0].state == "draining", what="the worker process leaving")
        worker.send_signal(last)
        assert worker.wait(120) == 1
    assert [(each.state, each.reason) for each in remote.workers()] == [
        ("left", "left without waiting for its rows in flight")
    ]
    assert remote.json("status", "y")["evaluations"][0]["rows"]["pending"] == 10
    assert leftover_processes(remote.path) == []


@pytest.mark.parametrize("pool", ["processes"])
def test_a_pool_that_cannot_run_rows_is_refused(remote: Project, pool: str) -> None:
    remote.environment["DOTEVAL_PATH"] = "evals"
    program = [str(CELERY), "-A", "doteval.worker", "worker", "--pool", pool]
    with remote.started(program=program) as worker:
        assert worker.wait(120) == 2
    assert "Celery's pool prefork cannot run rows" in remote.output()
    assert "Leave out --pool." in remote.output()

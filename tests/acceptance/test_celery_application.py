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
        remote.run("submit", "evals", "--broker", remote.environment["DOTEVAL_BROKER"], "--experiment", "x")
        # Celery's own way to stop it: rows in flight end, and fixtures are torn down.
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0
    assert len(remote.records("x")["eval_plain"]) == 100
    assert remote.counts() == {"+model": 1, "-model": 1}
    assert [each.state for each in remote.workers()] == ["left"]
    assert leftover_processes(remote.path) == []


def test_the_library_has_the_application_where_the_directory_is_not_at_hand(remote: Project) -> None:
    # A project's own package of that name, in the current directory, which Celery's command looks into first.
    remote.write("workers/__init__.py", "mine = True\n")
    remote.environment["DOTEVAL_PATH"] = "evals"
    with remote.started(program=[str(CELERY), "-A", "doteval.worker", "worker", "-n", "plain@%h"]):
        wait_for_worker(remote)
        remote.run("submit", "evals", "--experiment", "x")
    assert len(remote.records("x")["eval_plain"]) == 100

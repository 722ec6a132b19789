"""A user's project may have modules called `workers`: doteval installs nothing of that name."""

from __future__ import annotations

import pytest

from tests.support.project import Project, leftover_processes, wait_until

# What the evaluation imports, as a module or as a package with a module of its own.
ANSWERS = """
WHO = "the user's own"

def answer(number):
    tell("answer")
    return number % 2
"""
SHAPES = {
    "package": {"workers/__init__.py": "from workers.answers import WHO, answer\n", "workers/answers.py": ANSWERS},
    "module": {"workers.py": ANSWERS},
}
# One row fails until the file `mended` is there.
EVALUATION = """
from pathlib import Path

import workers
from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range(20)])
def eval_own(number):
    if number == 7 and not (Path(__file__).parent / "mended").exists():
        raise ValueError("not yet")
    return Result(exact_match(workers.answer(number), number % 2), model_response=workers.WHO)
"""


@pytest.fixture(params=SHAPES)
def own(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project whose evaluation imports the user's `workers`."""
    for name, text in SHAPES[request.param].items():
        project.write(name, text)
    project.write("eval_it.py", EVALUATION)
    return project


def check(project: Project, experiment: str, *, failed: int) -> None:
    records = project.records(experiment)["eval_own"]
    assert len(records) == 20
    assert sum(record.outcome.error is not None for record in records) == failed
    answers = {record.outcome.model_response for record in records if record.outcome.error is None}
    assert answers == {"the user's own"}


def test_plain_pytest(own: Project) -> None:
    done = own.commands.run(
        "pytest",
        ["eval_it.py", "--experiment", "x"],
        directory=own.path,
        environment=own.process_environment(),
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    check(own, "x", failed=1)


def test_submit_and_retry_with_local_workers(own: Project) -> None:
    own.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2")
    check(own, "x", failed=1)
    own.write("mended", "")
    own.run("retry", "x", "--workers", "2")
    check(own, "x", failed=0)
    assert leftover_processes(own.path) == []


def test_a_worker_service_and_retry(own: Project, redis_url: str) -> None:
    own.environment["DOTEVAL_BROKER"] = redis_url
    with own.started("worker", ".", "--processes", "2"):
        wait_until(lambda: sum(each.state == "ready" for each in own.workers()) == 2, what="two ready worker processes")
        own.run("submit", "eval_it.py", "--experiment", "x")
        check(own, "x", failed=1)
        own.write("mended", "")
        own.run("retry", "x")
        check(own, "x", failed=0)

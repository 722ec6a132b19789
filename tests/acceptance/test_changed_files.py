"""Evaluation files that change while a worker service runs: its processes read them when they are idle."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATION = """
import asyncio
import os
import pytest
from doteval import Score, foreach
from helper import version

@pytest.fixture(scope="session")
def model():
    tell("+model")
    return "m"

@foreach("i", [(i,) for i in range(40)])
async def eval_it(i, model):
    tell(f"{version} {i}")
    # The old experiment runs until the test lets it end.
    while version == "held" and not os.path.exists("go"):
        await asyncio.sleep(0.02)
    await asyncio.sleep(PAUSE)
    return Score("version", version, [])
"""

MARKED = """
import pytest
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(5)])
def eval_new(i):
    tell("new file")
    return Score("ok", True, ["accuracy"])
"""


@pytest.fixture
def served(project: Project, redis_url: str) -> Project:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION.replace("PAUSE", "0"))
    project.write("helper.py", "version = 'old'\n")
    return project


def ready(project: Project, processes: int) -> Any:
    live = [worker for worker in project.workers() if worker.state == "ready"]
    return live if len(live) >= processes else None


def findings(project: Project) -> dict[str, dict[str, Any]]:
    return {found["name"]: found for found in project.json("doctor", ".")["findings"]}


def plan(project: Project, experiment: str) -> list[str]:
    """The sentences of ``doteval status`` about worker processes with other files."""
    (evaluation,) = project.json("status", experiment)["evaluations"]
    return [sentence for sentence in evaluation["plan"] if "the changed" in sentence]


def test_a_submission_waits_until_busy_worker_processes_have_read_the_changed_file(served: Project) -> None:
    served.write("helper.py", "version = 'held'\n")
    with served.started("worker", ".", "--processes", "2", "--concurrency", "2"):
        first = {worker.info.pid for worker in wait_until(lambda: ready(served, 2), what="two worker processes")}
        assert findings(served)["worker files"]["text"] == "2 worker processes have the same files"
        served.run("submit", "eval_it.py", "--experiment", "old", "--detach")
        wait_until(lambda: served.counts(), what="a row of the old experiment")
        served.write("helper.py", "version = 'new'\n")
        found = [each for name, each in findings(served).items() if name.startswith("files of worker-")]
        assert len(found) == 2
        assert all("helper.py (" in each["text"] and "will reload" in each["text"] for each in found)
        served.run("submit", "eval_it.py", "--experiment", "later", "--samples", "1", "--detach")
        (waits,) = wait_until(lambda: plan(served, "later"), what="a worker process that waits")
        assert waits == "2 worker processes load the changed helper.py once there are no other rows to run"
        with served.started("submit", "eval_it.py", "--experiment", "new") as submission:
            said = "waiting for 2 worker processes to load the changed helper.py"
            wait_until(lambda: said in served.output(), what="the note")
            assert_shown("workers-reload", served.output())
            served.write("go", "")
            assert submission.wait(120) == 0
        served.run("watch", "later")
        last = {worker.info.pid for worker in wait_until(lambda: ready(served, 2), what="two worker processes")}
    rows = Counter(event.what for event in served.events() if event.what != "+model")
    assert rows == {f"{version} {i}": 1 for version in ("held", "new") for i in range(40)} | {"new 0": 2}
    assert served.counts()["+model"] == 4
    assert not first & last
    for experiment, version in (("old", "held"), ("new", "new")):
        (records,) = served.records(experiment).values()
        assert [record.outcome.scores[0].value for record in records] == [version] * 40
    # No old row ran after the first new one: the old experiment ran to its end on the old code.
    versions = [event.what.split()[0] for event in served.events() if event.what != "+model"]
    assert versions == ["held"] * 40 + ["new"] * 41
    assert "left with exit code" not in served.output()


@pytest.mark.parametrize("change", ["eval_it.py", "conftest.py", "eval_new.py", "helper.py"])
def test_an_idle_worker_process_reads_a_changed_file_for_the_first_submission(served: Project, change: str) -> None:
    with served.started("worker", ".", "--processes", "1"):
        (before,) = wait_until(lambda: ready(served, 1), what="a worker process")
        texts = {
            "eval_it.py": EVALUATION.replace("PAUSE", "0.001"),
            "conftest.py": "def pytest_configure():\n    tell('configured')\n",
            "eval_new.py": MARKED,
            "helper.py": "version = 'new'\n",
        }
        served.write(change, texts[change])
        done = served.run("submit", "eval_new.py" if change == "eval_new.py" else "eval_it.py", "--experiment", "x")
        assert f"waiting for 1 worker process to load the changed {change}" in done.stderr + done.stdout
        (after,) = wait_until(lambda: ready(served, 1), what="a worker process")
    (records,) = served.records("x").values()
    assert {record.outcome.status for record in records} == {"done"}
    assert {load["fixture"] for load in served.json("usage", "x")["fixtures"]} <= {"model"}
    assert before.info.pid != after.info.pid
    reasons = {worker.info.pid: worker.reason for worker in served.workers()}
    assert reasons[before.info.pid] == f"reloaded: {change} has changed"
    assert "left with exit code" not in served.output()

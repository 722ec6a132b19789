"""Experiments share worker processes fairly: a small one does not wait behind a large one."""

from __future__ import annotations

import pytest

from doteval.core.results import Record
from tests.acceptance.test_worker_service import ready
from tests.support.project import Project, wait_until

# Rows take 0.1 s; two processes run 200 of them a second, so the large experiment takes minutes.
EVALUATION = """
import asyncio
from doteval import Result, Score, foreach

@foreach("number", [(number,) for number in range({rows})])
async def {name}(number):
    tell("{name}")
    await asyncio.sleep({seconds})
    return Score("ok", True, ["accuracy"])
"""


@pytest.fixture
def busy(project: Project, broker_url: str) -> Project:
    """A project with a large and a small evaluation."""
    project.environment["DOTEVAL_BROKER"] = broker_url
    project.write("eval_large.py", EVALUATION.format(rows=20_000, name="eval_large", seconds=0.1))
    project.write("eval_small.py", EVALUATION.format(rows=200, name="eval_small", seconds=0.1))
    return project


def records(project: Project, experiment: str) -> list[Record]:
    (found,) = project.records(experiment).values()
    return found


def ends(found: list[Record]) -> list[float]:
    """When each row ended, in order."""
    return sorted(record.outcome.started_at + record.outcome.seconds for record in found)


def test_a_small_experiment_gets_its_share_at_once(busy: Project) -> None:
    with busy.started("worker", ".", "--processes", "2"):
        wait_until(lambda: ready(busy, 2), what="two ready worker processes")
        busy.run("submit", "eval_large.py", "--experiment", "large", "--detach")
        wait_until(lambda: busy.done() >= 300, what="300 rows of the large experiment")
        busy.run("submit", "eval_small.py", "--experiment", "small")
        large = busy.json("status", "large")["evaluations"][0]["rows"]
        busy.run("cancel", "large")
    small = ends(records(busy, "small"))
    large_ends = ends(records(busy, "large"))
    with busy.store() as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("small"))
    # Rows of the large experiment that ended after the small one was created and before its first row ended; some
    # 19,000 were queued before it.
    ahead = [end for end in large_ends if evaluation.created_at.timestamp() <= end < small[0]]
    assert len(ahead) < 500
    assert large["pending"] > 1_000
    # Its fair share is half, less what smaller row tasks and the late start cost.
    others = [end for end in large_ends if small[0] <= end <= small[-1]]
    assert len(small) / (len(small) + len(others)) > 0.2, len(others)


@pytest.mark.parametrize(
    ("priority", "first"), [("high", True), pytest.param("low", False, marks=pytest.mark.slow("the high priority"))]
)
def test_a_higher_priority_runs_first(project: Project, broker_url: str, priority: str, first: bool) -> None:
    project.environment["DOTEVAL_BROKER"] = broker_url
    # All rows of one experiment fit into its time slice of two seconds, on a slow machine too.
    project.write("eval_one.py", EVALUATION.format(rows=60, name="eval_one", seconds=0.01))
    project.write("eval_two.py", EVALUATION.format(rows=60, name="eval_two", seconds=0.01))
    one = ("submit", "eval_one.py", "--experiment", "one", "--detach", "--rows-per-task", "1")
    two = ("submit", "eval_two.py", "--experiment", "two", "--detach", "--rows-per-task", "1")
    project.run(*one)
    project.run(*two, "--priority", priority)
    with project.started("worker", ".", "--processes", "1", "--concurrency", "1"):
        project.run("watch", "one")
        project.run("watch", "two")
    order = [event.what for event in project.events()]
    ahead = "eval_two" if first else "eval_one"
    # A worker process may hold a few row tasks of the other experiment before it fetches again.
    assert order[:55].count(ahead) >= 40, order

"""Metrics that only the evaluation file defines: commands that do not load it show their values all the same."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.project import Project

# The example of the docs, a metric that leaves failed rows out, and a score that is NaN.
SHARE = """
from pathlib import Path
from doteval import Result, Score, foreach
from doteval.evaluators import evaluator
from doteval.metrics import Calculation, metric

@metric
def share_above(threshold=0.5):
    def calculate(scores):
        return sum(score > threshold for score in scores) / len(scores)

    return calculate

@metric
def longest():
    return Calculation(lambda texts: max(map(len, texts)), failed_as_false=False)

@evaluator(metrics=[share_above(), share_above(threshold=0.8)])
def closeness(value):
    return value

@evaluator(metrics=longest())
def said(text):
    return text

@foreach("i", [(i,) for i in range(10)], retries=0)
def eval_share(i):
    if i == 4 and Path("broken").exists():
        raise ValueError("no")
    return Result(closeness(i / 10), said("x" * i), Score("odd", float("nan") if i == 7 else 1.0, ["mean"]))
"""

BROKEN = {"share_above": (0.4, 10), "share_above(threshold=0.8)": (0.1, 10), "longest": (9.0, 9), "mean": (None, 10)}
MENDED = {"share_above": (0.4, 10), "share_above(threshold=0.8)": (0.1, 10), "longest": (9.0, 10), "mean": (None, 10)}


def metrics(project: Project, experiment: str, *options: str) -> dict[str, Any]:
    """What `show` knows of the metrics, by their names."""
    (evaluation,) = project.json("show", experiment, *options)["evaluations"]
    assert evaluation["status"] == "completed"
    return {metric["name"]: metric for score in evaluation["scores"] for metric in score["metrics"]}


def figures(project: Project, experiment: str, *options: str) -> dict[str, tuple[float | None, int]]:
    return {name: (metric["value"], metric["n"]) for name, metric in metrics(project, experiment, *options).items()}


@pytest.fixture
def share(project: Project) -> Project:
    project.write("eval_share.py", SHARE)
    (project.path / "broken").touch()
    return project


def test_show_needs_no_evaluation_file_and_recompute_loads_it(share: Project) -> None:
    ran = share.commands.run(
        "pytest",
        ["eval_share.py", "--experiment", "x", "-p", "no:cacheprovider"],
        directory=share.path,
        environment=share.process_environment(),
        timeout=90,
    )
    note = "odd mean: 1 of 9 scores is NaN (row 7)"
    warning = "1 of 10 rows failed (10.0%): the figures count them as False"
    assert note in ran.stdout
    assert warning in ran.stdout
    file = share.path / "eval_share.py"
    file.rename(share.path / "hidden")
    shown = share.run("show", "x")
    assert note in shown.stdout
    assert warning in shown.stdout
    assert shown.stderr == ""
    assert figures(share, "x") == BROKEN
    found = metrics(share, "x")
    assert found["mean"]["note"] == "1 of 9 scores is NaN (row 7)"
    assert found["longest"]["note"].endswith("1 failed row left out")
    assert found["share_above"]["interval"] is not None
    assert share.json("show", "x")["evaluations"][0]["warnings"] == [warning]
    assert figures(share, "x", "--errors-as", "excluded")["share_above"] == (pytest.approx(4 / 9), 9)

    (share.path / "hidden").rename(file)
    file.write_text(file.read_text().replace("score > threshold", "score >= threshold"))
    assert figures(share, "x") == BROKEN
    # compare loads the file only when it is asked to.
    for options, tests in (([], {"none"}), (["--load-files"], {"permutation"})):
        (compared,) = share.json("compare", "x", "x", "--score", "closeness", *options)["evaluations"]
        assert {each["test"] for each in compared["metrics"]} == tests

    recomputed = share.run("recompute", "x")
    assert "0.500" in recomputed.stdout
    assert figures(share, "x") == {**BROKEN, "share_above": (0.5, 10), "share_above(threshold=0.8)": (0.2, 10)}

    file.write_text(file.read_text().replace("def longest()", "def shortest()").replace("longest()", "shortest()"))
    refused = share.run("recompute", "x", check=2)
    assert "longest of eval_share.py::eval_share" in refused.stderr


def test_workers_store_the_metrics_of_a_submission_that_has_left(share: Project, redis_url: str) -> None:
    share.environment["DOTEVAL_BROKER"] = redis_url
    with share.started("worker", ".", "--processes", "1"):
        share.run("submit", "eval_share.py", "--experiment", "x", "--detach")
        watched = share.run("watch", "x")
        assert "recompute" not in watched.stdout
        assert figures(share, "x") == BROKEN
        (share.path / "broken").unlink()
        # This command does not load the file either.
        retried = share.run("retry", "x")
        assert "recompute" not in retried.stdout
        assert figures(share, "x") == MENDED
        # A submitter that follows stores them itself.
        share.run("submit", "eval_share.py", "--experiment", "y")
        assert figures(share, "y") == MENDED

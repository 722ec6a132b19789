"""`doteval history`: the table, the sentence that names a break, JSON, and what is not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.analysis.summary import MetricValue, ScoreSummary, Summary
from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import GitState, Provenance
from doteval.metrics.intervals import wilson
from doteval.store import Store
from tests.support.cli import CommandLine, line_with
from tests.support.store_workload import begin, done, results, rows

pytestmark = pytest.mark.usefixtures("without_settings")

RIGHT = {"night 1": 36, "night 2": 35, "night 3": 15, "try": 40}


@pytest.fixture
def storage(tmp_path: Path) -> str:
    """Four experiments of 40 rows; the metric fell in the third."""
    path = str(tmp_path / "results.db")
    with Store.open(path) as store:
        for number, (name, right) in enumerate(RIGHT.items()):
            evaluation = begin(store, 40, name=name)
            store.rows.set_total(evaluation.id, 40, complete=True, fingerprint="f", rows_hash="r")
            store.results.write(results(evaluation, rows(40), done()), None)
            store.evaluations.set_status(evaluation.id, EvaluationStatus.COMPLETED)
            branch = "feature" if name == "try" else "main"
            store.provenance.add(evaluation.experiment, Provenance(("pytest",), GitState(f"{number}" * 40, branch)))
            ended = store.evaluations.by_uid(evaluation.uid)
            metric = MetricValue("accuracy", right / 40, 40, wilson(right, 40))
            assert store.summaries.write(ended, [Summary(ended.counts, (ScoreSummary("exact_match", (metric,), 0),))])
        store.labels.change(store.experiments.find("night 1"), add=["base"])
    return path


def test_the_break_is_named(doteval_: CommandLine, storage: str) -> None:
    ran = doteval_("history", "exact_match.accuracy", "--branch", "main", "--storage", storage)
    assert ran.code == 0
    assert "evals/eval_qa.py::eval_qa  exact_match.accuracy  ██▁" in ran.out
    assert "base" in line_with(ran.out, "night 1 ")
    assert "-0.025" in line_with(ran.out, "night 2 ")
    assert "-0.500 !" in line_with(ran.out, "0.375")
    fell = line_with(ran.out, "accuracy fell by 0.500")
    assert fell == "accuracy fell by 0.500 (0.294 to 0.650) from night 2 to night 3 (commit 22222222)"
    assert "try" not in ran.out


def test_json(doteval_: CommandLine, storage: str) -> None:
    document = json.loads(doteval_("history", "exact_match", "--limit", "3", "--storage", storage, "--json").out)
    (series,) = document["series"]
    assert (series["evaluation"], series["score"], series["metric"]) == (
        "evals/eval_qa.py::eval_qa",
        "exact_match",
        "accuracy",
    )
    points = {point["experiment"]: point for point in series["points"]}
    assert list(points) == ["night 2", "night 3", "try"]
    assert [point["changed"] for point in points.values()] == [False, True, True]
    assert points["night 3"]["difference"] == pytest.approx(-0.5)
    assert points["try"]["branch"] == "feature"
    assert points["try"]["compared_with"] == "night 3"


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("f1",), "has the score 'f1', among 4 experiments"),
        (("exact_match", "--tag", "none"), "among 0 experiments"),
        (("exact_match", "--evaluation", "eval_other"), "contains 'eval_other', among 4 experiments"),
        (("exact_match", "--since", "soon"), "'soon' is neither an age nor a date"),
    ],
)
def test_what_is_not_there(doteval_: CommandLine, storage: str, args: tuple[str, ...], problem: str) -> None:
    ran = doteval_("history", *args, "--storage", storage)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err


def test_the_baseline_is_shown_and_compared_with(doteval_: CommandLine, storage: str) -> None:
    doteval_("baseline", "set", "night 1", "--storage", storage)
    # The filter leaves the baseline out, and it is shown all the same.
    ran = doteval_("history", "exact_match", "--branch", "feature", "--storage", storage)
    assert "(baseline), base" in line_with(ran.out, "night 1 ")
    assert "+0.100" in line_with(ran.out, "try ")
    document = json.loads(doteval_("history", "exact_match", "--storage", storage, "--json").out)
    points = {point["experiment"]: point for point in document["series"][0]["points"]}
    assert [point["baseline"] for point in points.values()] == [True, False, False, False]
    assert points["night 1"]["baseline_difference"] is None
    assert points["night 3"]["baseline_difference"] == pytest.approx(-21 / 40)
    low, high = points["night 3"]["baseline_interval"]
    assert low < -21 / 40 < high < 0
    assert points["night 2"]["compared_with"] == "night 1"

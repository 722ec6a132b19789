"""`doteval.compare`: what `doteval compare` says, as a value and as a table of a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import doteval
from doteval.errors import NotFoundError, UsageError
from doteval.store import Store
from tests.support.cli import CommandLine
from tests.support.comparisons import FAILED, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")


@pytest.fixture
def storage(tmp_path: Path) -> str:
    path = str(tmp_path / "results.db")
    with Store.open(path) as store:
        add_experiment(store, "base", {"right": [True] * 40, "<b>\x00": [True] * 40})
        add_experiment(
            store, "new", {"right": [True] * 20 + [FAILED] * 20, "<b>\x00": [True] * 40}, code="2", name="eval_qa"
        )
        add_experiment(store, "other", {"right": [True]}, name="eval_other")
    return path


def test_a_comparison_says_what_the_command_says(storage: str, doteval_: CommandLine) -> None:
    found = doteval.compare("base", "new", storage=storage)
    (evaluation,) = json.loads(doteval_("compare", "base", "new", "--storage", storage, "--json").out)["evaluations"]
    assert found.verdict == evaluation["verdict"] == "WORSE"
    assert [(each.score, each.difference, each.verdict) for each in found.metrics] == [
        (each["score"], each["difference"], each["verdict"]) for each in evaluation["metrics"]
    ]
    assert "the code differs: evals/eval_qa.py" in found.notes
    assert "new: 20 rows failed (rows 20, 21, 22, 23, 24, ...)" in found.notes
    assert repr(found).startswith("<WORSE: new against base: right accuracy WORSE (1.000 → 0.500)")


def test_rows_are_paired_by_a_column(storage: str) -> None:
    with Store.open(storage) as store:
        backwards = [f"key{index}" for index in reversed(range(40))]
        add_experiment(store, "imported", {"right": [False] * 20 + [True] * 20}, keys=backwards, name="eval_qa")
    for key in ("question", ("question", "question")):
        found = doteval.compare("base", "imported", key=key, scores=["right"], storage=storage)
        assert (found.metrics[0].n, found.verdict) == (40, "WORSE")
    lower = doteval.compare("base", "imported", scores=["right"], lower_is_better=["right"], storage=storage)
    assert lower.verdict == "BETTER"
    with pytest.raises(UsageError, match="no column 'id'"):
        doteval.compare("base", "imported", key=("question", "id"), storage=storage)


def test_a_notebook_shows_tables(storage: str) -> None:
    table = doteval.compare("base", "new", storage=storage)._repr_html_()
    assert "<p>WORSE: new against base</p><table>" in table
    assert "-0.500</td>" in table
    results = doteval.load("new", storage=storage)._repr_html_()
    assert "Wilson</td>" in results
    for shown in (table, results):
        assert "&lt;b&gt;\N{REPLACEMENT CHARACTER}" in shown
        assert "<b>" not in shown
        assert shown.count("<td") % shown.count("<th ") == 0


def test_what_cannot_be_compared(storage: str) -> None:
    with pytest.raises(NotFoundError, match="no experiment named 'nothing'"):
        doteval.compare("base", "nothing", storage=storage)
    with pytest.raises(NotFoundError, match="no evaluations of the same name"):
        doteval.compare("base", "other", storage=storage)
    with pytest.raises(NotFoundError, match="no evaluation of the baseline has a score 'f2'"):
        doteval.compare("base", "new", scores=["f2"], storage=storage)
    assert doteval.compare("base", "other::eval_other", storage=storage).verdict == "UNDECIDED"

"""`doteval recompute`: what it shows, stores, records and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import GitState, Provenance
from doteval.store import Store
from tests.support.cli import CommandLine, line_with
from tests.support.comparisons import FAILED, PENDING, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A store with "first", two samples of each of ten rows, a "running" experiment, and one of doteval 0.2."""
    right = [FAILED, *[sample % 3 > 0 for sample in range(1, 20)]]
    with Store.open(str(tmp_path / "results.db")) as store:
        first = add_experiment(store, "first", {"right": right, "other": right}, epochs=2)
        store.provenance.add(first.experiment, Provenance(("pytest",), GitState("a" * 40, "main"), "host", "ann"))
        add_experiment(store, "old", {"right": [True]})
        add_experiment(store, "running", {"right": [True, PENDING]}, status=EvaluationStatus.RUNNING)
        return store.url


def shown(doteval_: CommandLine, storage: str) -> dict[tuple[str, str], Any]:
    document = json.loads(doteval_("show", "first", "--json", "--storage", storage).out)
    return {
        (score["name"], metric["name"]): metric["value"]
        for score in document["evaluations"][0]["scores"]
        for metric in score["metrics"]
    }


def recomputed(doteval_: CommandLine, storage: str, *options: str) -> list[tuple[Any, ...]]:
    document = json.loads(doteval_("recompute", "first", "--storage", storage, "--json", *options).out)
    keys = ("score", "metric", "before", "after", "change")
    return [tuple(each[key] for key in keys) for each in document["evaluations"][0]["metrics"]]


def test_other_metrics_and_reducers(doteval_: CommandLine, stored: str) -> None:
    first = recomputed(doteval_, stored)
    assert first == [(score, "accuracy", None, 0.65, "new") for score in ("right", "other")]
    metrics = ("--metric", "right=accuracy", "--metric", "right=std", "--reducer", "max")
    tried = recomputed(doteval_, stored, *metrics, "--dry-run")
    assert tried[:2] == [("right", "accuracy", 0.65, 1.0, "changed"), ("other", "accuracy", 0.65, 1.0, "changed")]
    assert tried[2][1:] == ("std", None, 0.0, "new")
    assert shown(doteval_, stored) == {("right", "accuracy"): 0.65, ("other", "accuracy"): 0.65}
    ran = doteval_("recompute", "first", "--storage", stored, *metrics)
    assert ran.code == 0
    assert line_with(ran.out, "right  accuracy").split()[2:4] == ["0.650", "1.000"]
    assert shown(doteval_, stored) == {("right", "accuracy"): 1.0, ("right", "std"): 0.0, ("other", "accuracy"): 1.0}
    # The next one has the score's own metrics again, and the reducer that was chosen.
    assert ("right", "std", 0.0, None, "gone") in recomputed(doteval_, stored)


def test_the_command_is_recorded_as_what_it_was(
    doteval_: CommandLine, stored: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "first", "old"):
        monkeypatch.setattr("sys.argv", ["/bin/doteval", "recompute", name])
        assert doteval_("recompute", name, "--storage", stored).code == 0
    first, *later = doteval_("show", "first", "--storage", stored).out.partition("\n\n")[0].splitlines()
    assert first == "Begun from commit aaaaaaaa (main) by ann on host"
    assert [line.split()[0] for line in later] == ["Recomputed"]
    with Store.open(stored) as store:
        begun, again = store.provenance.of(store.experiments.find("first"))
        assert (begun.recomputes, again.recomputes) == (False, True)
        # Nobody knows which command began it: this was not the one.
        assert store.provenance.of(store.experiments.find("old")) == []
        assert store.experiments.overviews()[0].begun_by is None


def test_nothing_is_stored_by_a_dry_run(doteval_: CommandLine, stored: str) -> None:
    ran = doteval_("recompute", "first", "--storage", stored, "--dry-run")
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Nothing was stored")
    with Store.open(stored) as store:
        experiment = store.experiments.find("first")
        assert store.summaries.read(store.evaluations.of(experiment)[0]) is None
        assert len(store.provenance.of(experiment)) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("running",), "evals/eval_qa.py::eval_qa is running"),
        (("first", "--metric", "rihgt=std"), "no evaluation has a score 'rihgt'\nDid you mean 'right'?"),
        (("first", "--metric", "right=nosuch"), "nothing defines the metric nosuch"),
        (("first", "--metric", "right=meen"), "Did you mean 'mean'"),
        (("first", "--metric", "right=f1"), "f1 needs pairs (predicted, expected), not bool"),
        (("first", "--metric", "right"), "'right' is not SCORE=METRIC"),
        (("none",), "there is no experiment named 'none'"),
    ],
)
def test_what_is_refused(doteval_: CommandLine, stored: str, arguments: tuple[str, ...], problem: str) -> None:
    ran = doteval_("recompute", *arguments, "--storage", stored)
    assert (ran.code, ran.out) == (2, "")
    assert problem in ran.err

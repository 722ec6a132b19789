"""`doteval baseline`, and the commands that take the baseline where none is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.store import Store
from tests.support.cli import CommandLine, line_with
from tests.support.comparisons import PENDING, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")

BEFORE = [True, True, False, True] * 50


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A store with "base", the same again as "same", and "worse"."""
    with Store.open(str(tmp_path / "results.db")) as store:
        add_experiment(store, "base", {"right": BEFORE})
        add_experiment(store, "same", {"right": BEFORE})
        add_experiment(store, "worse", {"right": [right and row % 4 > 0 for row, right in enumerate(BEFORE)]})
        return store.url


def test_set_show_and_clear(doteval_: CommandLine, stored: str) -> None:
    def show() -> object:
        return json.loads(doteval_("baseline", "show", "--storage", stored, "--json").out)["baseline"]

    ran = doteval_("baseline", "show", "--storage", stored)
    assert (ran.code, "doteval baseline set NAME" in ran.out, show()) == (0, True, None)
    for name in ("same", "base"):
        ran = doteval_("baseline", "set", name, "--storage", stored)
        assert (ran.code, ran.out) == (0, f"'{name}' is the baseline of {stored}\n")
    found = show()
    assert isinstance(found, dict)
    assert (found["name"], set(found)) == ("base", {"name", "created_at", "since"})
    assert "1 evaluation, 1 completed" in doteval_("baseline", "show", "--storage", stored).out
    assert "(baseline)" in line_with(doteval_("list", "--storage", stored).out, "base ")
    assert "(baseline)" not in line_with(doteval_("list", "--storage", stored).out, "same ")
    assert "This is the baseline" in doteval_("show", "base", "--storage", stored).out
    listed = json.loads(doteval_("list", "--storage", stored, "--json").out)["experiments"]
    assert {each["name"]: each["baseline"] for each in listed} == {"base": True, "same": False, "worse": False}
    assert doteval_("baseline", "clear", "--storage", stored).code == 0
    assert show() is None


def test_what_cannot_be_the_baseline(doteval_: CommandLine, stored: str) -> None:
    with Store.open(stored) as store:
        store.experiments.begin("empty")
        add_experiment(store, "cut", {"right": [True, PENDING]}, status=EvaluationStatus.CANCELLED)
    for name, why in (("empty", "has no evaluations"), ("bse", "Did you mean 'base'?")):
        ran = doteval_("baseline", "set", name, "--storage", stored)
        assert ran.code == 2
        assert why in ran.err
    ran = doteval_("baseline", "set", "cut", "--storage", stored)
    assert ran.code == 0
    assert "eval_qa is cancelled: nothing passes" in ran.err


def test_compare_takes_the_baseline(doteval_: CommandLine, stored: str) -> None:
    ran = doteval_("compare", "worse", "--storage", stored)
    assert (ran.code, "doteval baseline set NAME" in ran.err) == (2, True)
    ran = doteval_("compare", "baseline", "worse", "--storage", stored)
    assert (ran.code, "no experiment is the baseline" in ran.err) == (2, True)
    doteval_("baseline", "set", "base", "--storage", stored)
    for names in (["worse"], ["baseline", "worse"], ["baseline::eval_qa", "worse"]):
        ran = doteval_("compare", *names, "--storage", stored)
        assert (ran.code, "base → worse" in ran.out, "Verdict: WORSE" in ran.out) == (0, True, True)
    for name in ("base", "baseline"):
        ran = doteval_("compare", name, "--storage", stored)
        assert (ran.code, "'base' is the baseline itself" in ran.err) == (2, True)


def test_an_experiment_named_baseline(doteval_: CommandLine, stored: str) -> None:
    with Store.open(stored) as store:
        store.experiments.rename("same", "baseline")
    assert "baseline → worse" in doteval_("compare", "baseline", "worse", "--storage", stored).out
    doteval_("baseline", "set", "base", "--storage", stored)
    ran = doteval_("compare", "baseline", "worse", "--storage", stored)
    assert (ran.code, "can mean 'base'" in ran.err) == (2, True)
    doteval_("baseline", "set", "baseline", "--storage", stored)
    assert "baseline → worse" in doteval_("compare", "baseline", "worse", "--storage", stored).out


def test_thresholds_take_the_baseline(doteval_: CommandLine, stored: str) -> None:
    doteval_("baseline", "set", "base", "--storage", stored)
    assert doteval_("watch", "same", "--fail-if-worse", "baseline", "--storage", stored).code == 0
    ran = doteval_("watch", "worse", "--fail-if-worse", "baseline", "--storage", stored)
    assert ran.code == 1
    assert "eval_qa right.accuracy is WORSE" in ran.err
    assert "(--fail-if-worse baseline, which is base)" in ran.err


@pytest.mark.parametrize("name", ["baseline", "base"])
def test_nothing_passes_by_a_comparison_with_itself(doteval_: CommandLine, stored: str, name: str) -> None:
    doteval_("baseline", "set", "base", "--storage", stored)
    ran = doteval_("watch", "base", "--fail-if-worse", name, "--storage", stored)
    assert ran.code == 2
    assert "would compare 'base' with itself" in ran.err
    ran = doteval_("watch", "base", "--fail-if-worse", f"{name}::eval_qa", "--storage", stored)
    assert ran.code == 1
    assert "eval_qa is the baseline itself" in ran.err


def test_the_baseline_is_kept(doteval_: CommandLine, stored: str) -> None:
    doteval_("baseline", "set", "base", "--storage", stored)
    ran = doteval_("delete", "base", "--yes", "--storage", stored)
    assert (ran.code, "'base' is the baseline, and is not deleted" in ran.err) == (2, True)
    ran = doteval_("rename", "base", "first", "--storage", stored)
    assert ran.out == "Renamed 'base' to 'first', which stays the baseline\n"
    ran = doteval_("prune", "--older-than", "0s", "--yes", "--storage", stored)
    assert "The baseline 'first' kept" in ran.err
    assert "Deleted 2 experiments" in ran.out
    document = json.loads(doteval_("prune", "--older-than", "0s", "--storage", stored, "--json").out)
    assert (document["found"], document["kept_baseline"]) == ([], "first")
    doteval_("baseline", "clear", "--storage", stored)
    assert doteval_("delete", "first", "--yes", "--storage", stored).code == 0

"""The commands `tag` and `prune`, the filters of `list`, and where `show` says results come from."""

from __future__ import annotations

import io
import json
import sys

import pytest

from doteval.core.experiments import ephemeral_name
from doteval.core.provenance import GitState, Provenance
from doteval.store import Store
from doteval.store.engine import Database
from doteval.store.url import locate
from tests.support.cli import CommandLine
from tests.support.store_workload import begin

pytestmark = pytest.mark.usefixtures("without_settings")


def test_tag(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("tag", "alpha", "+paper", "base", "--note", "why not", "--storage", results)
    assert (ran.code, ran.out) == (0, "alpha: base, paper\nwhy not\n")
    ran = doteval_("tag", "alpha", "-base", "-math", "--storage", results, "--json")
    document = json.loads(ran.out)
    assert (document["name"], document["tags"], document["note"]) == ("alpha", ["paper"], "why not")
    ran = doteval_("tag", "alpha", "-paper", "--note", "", "--storage", results)
    assert ran.out == "alpha: no tags\n"


@pytest.mark.parametrize("wrong", [("two words",), ("+",), ("--unknown",)])
def test_what_cannot_be_a_tag(doteval_: CommandLine, results: str, wrong: tuple[str, ...]) -> None:
    assert doteval_("tag", "alpha", *wrong, "--storage", results).code == 2


def test_list_filters_and_sorts(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        other = begin(store, 3, name="beta").experiment
        store.labels.change(other, add=["base"])
        store.provenance.add(other, Provenance(("pytest",), GitState("f00d" * 10, "feature", dirty=True), "h", "ann"))

    def names(*options: str) -> list[str]:
        ran = doteval_("list", "--storage", results, "--json", *options)
        return [line["name"] for line in json.loads(ran.out)["experiments"]]

    assert names() == ["beta", "alpha"]
    assert names("--tag", "base") == names("--branch", "feature") == names("--search", "F00D") == ["beta"]
    assert names("--since", "1h", "--status", "running") == ["beta", "alpha"]
    assert names("--status", "failed") == names("--since", "0s") == []
    assert names("--sort", "name") == names("--sort", "-failed") == ["alpha", "beta"]
    assert "base" in doteval_("list", "--storage", results).out
    ran = doteval_("list", "--storage", results, "--tag", "none")
    assert (ran.code, ran.out) == (0, f"No experiments that match in sqlite:///{results}\n")
    for wrong in (("--sort", "colour"), ("--since", "yesterday")):
        assert doteval_("list", "--storage", results, *wrong).code == 2


def test_show_says_where_results_come_from(doteval_: CommandLine, results: str) -> None:
    with Store.open(results) as store:
        experiment = store.experiments.find("alpha")
        store.labels.change(experiment, add=["base"], note="of the paper")
        begun, other = GitState("a" * 40, "main", False), GitState("b" * 40, None, True)
        again = ("doteval", "recompute", "alpha")
        for number, (command, git) in enumerate(
            ((("pytest",), begun), (("pytest",), other), (("pytest",), other), (again, begun), (again, begun))
        ):
            store.provenance.add(experiment, Provenance((*command, str(number)), git, "host", "ann"))
    shown = doteval_("show", "alpha", "--storage", results).out.splitlines()
    assert shown[:6] == [
        "Begun from commit aaaaaaaa (main) by ann on host",
        "Continued from commit bbbbbbbb with uncommitted changes by ann on host",
        "Recomputed from commit aaaaaaaa (main) by ann on host",
        "Tags: base",
        "Note: of the paper",
        "",
    ]
    document = json.loads(doteval_("show", "alpha", "--storage", results, "--json").out)
    commits = [each["commit"][0] for each in document["experiment"]["commands"]]
    assert commits == ["a", "b", "b", "a", "a"]


@pytest.fixture
def old(results: str) -> dict[str, str]:
    """Experiments of 40 days ago, beside "alpha", whose evaluation is running: their names by kind."""
    names = {"named": "named", "unnamed": ephemeral_name(), "tagged": ephemeral_name(), "young": ephemeral_name()}
    with Store.open(results) as store:
        for name in names.values():
            store.experiments.begin(name)
        store.labels.change(store.experiments.find(names["tagged"]), add=["keep"])
        store.provenance.add(store.experiments.find(names["unnamed"]), Provenance(("pytest",)))
    database = Database(locate(results))
    with database.write() as connection:
        connection.exec_driver_sql(
            "UPDATE experiment SET created_at = created_at - 40 * 86400.0 WHERE name <> ?", (names["young"],)
        )
    database.close()
    return names


def left(results: str) -> set[str]:
    with Store.open(results) as store:
        return {line.experiment.name for line in store.experiments.overviews()}


def test_prune_deletes_what_is_old_unnamed_and_not_run(
    doteval_: CommandLine, results: str, old: dict[str, str]
) -> None:
    everything = {"alpha", *old.values()}
    ran = doteval_("prune", "--older-than", "30d", "--unnamed", "--dry-run", "--storage", results)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Would delete 1 experiment with 0 results"
    assert ran.err == "1 experiment with a tag kept\n"
    assert left(results) == everything
    ran = doteval_("prune", "--older-than", "30d", "--unnamed", "--yes", "--storage", results, "--json")
    assert json.loads(ran.out)["deleted"] == [old["unnamed"]]
    assert left(results) == everything - {old["unnamed"]}
    # Results were written to "alpha" just now, and somebody may go on.
    assert doteval_("prune", "--older-than", "30d", "-y", "--storage", results).code == 0
    assert left(results) == everything - {old["unnamed"], "named"}
    ran = doteval_("prune", "--older-than", "0s", "-y", "--storage", results)
    assert "1 experiment that somebody runs kept" in ran.err
    assert left(results) == {"alpha", old["tagged"]}
    assert doteval_("prune", "--older-than", "30d", "--storage", results).out == "No experiment is as old\n"


def test_prune_asks_and_needs_a_condition(
    doteval_: CommandLine, results: str, old: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = doteval_("prune", "--storage", results)
    assert ran.code == 2
    assert "--older-than" in ran.err
    for answer, code in (("", 2), ("n\n", 0)):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert doteval_("prune", "--older-than", "30d", "--storage", results).code == code
    assert left(results) == {"alpha", *old.values()}
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert doteval_("prune", "--older-than", "30d", "--storage", results).code == 0
    assert left(results) == {"alpha", old["tagged"], old["young"]}

"""The commands, tags and notes of experiments in the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.core.provenance import GitState, Provenance
from doteval.errors import UsageError
from doteval.store import ExperimentFilter, ExperimentLabels, Store, WorkerInfo, sort_overviews
from doteval.store.tables import EXPERIMENT_TAG, PROVENANCE
from tests.support.store_workload import begin, in_threads, results, rows

FIRST = Provenance(
    ("doteval", "submit", "eval_ü.py\x00"),
    GitState("a" * 40, "main", dirty=False),
    "host",
    "ann",
    {"python": "3.11"},
)
WORKER = WorkerInfo("w", "h", 1, ())
LATER = replace(FIRST, git=GitState("b" * 40, None, dirty=None), user=None)


def test_the_first_command_is_kept_and_those_that_differ_follow(store: Store) -> None:
    experiment = store.experiments.begin("x")
    for each in (FIRST, FIRST, LATER, LATER, FIRST):
        store.provenance.add(experiment, each)
    found = store.provenance.of(experiment)
    assert found == [FIRST, LATER, FIRST]
    assert [each.started_at for each in found] == sorted(each.started_at for each in found if each.started_at)
    assert store.experiments.overviews()[0].begun_by == FIRST
    assert store.provenance.of(store.experiments.begin("y")) == []


def test_processes_that_begin_at_once_record_one_command(store: Store) -> None:
    experiment = store.experiments.begin("x")
    in_threads(lambda _: store.provenance.add(experiment, FIRST))
    assert store.provenance.of(experiment) == [FIRST]


def test_a_deleted_experiment_leaves_nothing_behind(store: Store) -> None:
    experiment = begin(store, 1, name="x").experiment
    store.labels.change(experiment, add=["a"], note="n")
    store.provenance.add(experiment, FIRST)
    store.experiments.delete("x")
    with store._database.read() as connection:
        assert [connection.execute(table.select()).all() for table in (EXPERIMENT_TAG, PROVENANCE)] == [[], []]
    # A command that begins it meanwhile does no harm.
    store.provenance.add(experiment, FIRST)


def test_tags_and_notes(store: Store) -> None:
    experiment = store.experiments.begin("x")
    assert store.labels.of(experiment) == ExperimentLabels()
    store.labels.change(experiment, add=["b", "a", "ü", "b"], note="why\x00")
    store.labels.change(experiment, add=["c"], remove=["b", "unknown"])
    assert store.labels.of(experiment) == ExperimentLabels(("a", "c", "ü"), "why\x00")
    store.labels.change(experiment, note="")
    assert store.labels.of(experiment).note is None


@pytest.mark.parametrize("tag", ["", "+a", "-a", "two words", "a,b", "tab\t", "x" * 101])
def test_what_cannot_be_a_tag_changes_nothing(store: Store, tag: str) -> None:
    experiment = store.experiments.begin("x")
    with pytest.raises(UsageError, match="cannot be a tag"):
        store.labels.change(experiment, add=["good", tag], note="n")
    assert store.labels.of(experiment) == ExperimentLabels()


def test_experiments_are_found_by_tag_branch_status_and_text(store: Store) -> None:
    alpha = begin(store, 2, name="alpha")
    beta = store.experiments.begin("beta")
    store.labels.change(alpha.experiment, add=["base", "paper"], note="The Prompt of June")
    store.labels.change(beta, add=["base"])
    store.provenance.add(beta, replace(FIRST, git=GitState("c0ffee" + "0" * 34, "feature", dirty=True)))
    store.results.write(results(alpha, rows(1)), None)

    def found(**wanted: object) -> list[str]:
        chosen = ExperimentFilter(**wanted)  # type: ignore[arg-type]
        return [line.experiment.name for line in store.experiments.overviews() if chosen.matches(line)]

    assert found(tags=("base",)) == ["beta", "alpha"]
    assert found(tags=("base", "paper")) == ["alpha"]
    assert found(branch="feature") == ["beta"]
    assert found(status=EvaluationStatus.RUNNING) == ["alpha"]
    assert [found(search=text) for text in ("PROMPT of", "c0ffee", "ffee", "EVAL_Ü", "base", "nothing")] == [
        ["alpha"],
        ["beta"],
        [],
        ["beta"],
        ["beta", "alpha"],
        [],
    ]
    assert found(since=store.now()) == []
    assert len(found(since=alpha.experiment.created_at)) == 2
    lines = store.experiments.overviews()
    assert [line.experiment.name for line in sort_overviews(lines, "branch")] == ["beta", "alpha"]
    assert [line.experiment.name for line in sort_overviews(lines, "name")] == ["alpha", "beta"]
    assert [line.experiment.name for line in sort_overviews(lines, "-rows")] == ["alpha", "beta"]
    with pytest.raises(UsageError, match="'colour'"):
        sort_overviews(lines, "-colour")


def test_the_last_activity_is_the_latest_of_result_and_end(store: Store) -> None:
    evaluation = begin(store, 2, name="x")
    before = store.experiments.overviews()[0]
    assert before.active_at == evaluation.experiment.created_at
    store.results.write(results(evaluation, rows(1)), store.workers.begin(WORKER))
    assert store.experiments.overviews()[0].active_at > before.active_at

"""Experiments in the store: names, races, lists, renaming and deleting."""

from __future__ import annotations

import pytest
from sqlalchemy import func, select

from doteval.core.experiments import Counts, EvaluationSpec, EvaluationStatus
from doteval.core.results import Usage
from doteval.errors import NotFoundError, UsageError
from doteval.store import Store, WorkerInfo
from doteval.store.tables import ALL, RESOURCE_LOAD, WORKER
from tests.support.store_workload import begin, done, failed, in_threads, results, rows


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "Ünïcödé 日本 🙂",
        "",
        " spaces ",
        'it\'s "quoted" %s ?',
        "a/b\\c",
        "nul\x00inside",
        "lone \ud800",
        "\x1a0",
    ],
    ids=ascii,
)
def test_any_name_can_be_found_again(store: Store, name: str) -> None:
    begun = store.experiments.begin(name)
    assert begun.name == name
    assert store.experiments.begin(name) == begun
    assert store.experiments.find(name) == begun
    assert [overview.experiment.name for overview in store.experiments.overviews()] == [name]


def test_similar_names_are_different_experiments(store: Store) -> None:
    names = ["a\x00", "a", "\x1a0", "a\x1a0", "\x00", "A"]
    assert len({store.experiments.begin(name).id for name in names}) == len(names)


def test_threads_that_begin_the_same_experiment_get_the_same_one(store: Store) -> None:
    assert len({experiment.id for experiment in in_threads(lambda _: store.experiments.begin("one"))}) == 1


def test_an_unknown_name_gets_the_nearest_ones(store: Store) -> None:
    store.experiments.begin("baseline-gpt4")
    with pytest.raises(NotFoundError, match="'baseline-gtp4'") as raised:
        store.experiments.find("baseline-gtp4")
    assert raised.value.remedy == "Did you mean 'baseline-gpt4'?"


def test_overviews_add_up_the_evaluations_of_an_experiment(store: Store) -> None:
    evaluation = begin(store, 4, name="first")
    store.results.write(results(evaluation, rows(2)) + results(evaluation, rows(1, first=2), failed()), None)
    other = store.evaluations.begin(evaluation.experiment, EvaluationSpec("b.py", "eval_b", ("x",)), epochs=3)
    store.rows.add(other.id, rows(2))
    store.rows.set_total(other.id, 2, complete=True, fingerprint=None)
    store.evaluations.set_status(other.id, EvaluationStatus.COMPLETED)
    store.experiments.begin("Second")

    second, first = store.experiments.overviews()
    assert (first.experiment.name, first.evaluations) == ("first", 2)
    assert first.counts == Counts(total=10, done=2, failed=1)
    assert first.status is EvaluationStatus.RUNNING
    assert (second.experiment.name, second.evaluations, second.status) == ("Second", 0, None)
    assert [overview.experiment.name for overview in store.experiments.overviews("SEC")] == ["Second"]
    assert store.experiments.overviews("%") == []

    store.evaluations.set_status(evaluation.id, EvaluationStatus.FAILED, "broken")
    assert store.experiments.overviews("first")[0].status is EvaluationStatus.FAILED


def test_a_total_is_unknown_while_a_dataset_is_being_read(store: Store) -> None:
    evaluation = begin(store, 4)
    store.evaluations.begin(evaluation.experiment, EvaluationSpec("b.py", "eval_b", ("x",)))
    assert store.experiments.overviews()[0].counts.total is None


def test_rename(store: Store) -> None:
    experiment = store.experiments.begin("old")
    store.experiments.begin("taken")
    assert store.experiments.rename("old", "new\x00").id == experiment.id
    assert store.experiments.find("new\x00").id == experiment.id
    assert store.experiments.rename("taken", "taken").name == "taken"
    with pytest.raises(NotFoundError):
        store.experiments.find("old")
    with pytest.raises(UsageError, match="'taken' already"):
        store.experiments.rename("new\x00", "taken")
    with pytest.raises(NotFoundError):
        store.experiments.rename("nobody", "else")


def test_delete_leaves_only_workers_and_their_loads(store: Store) -> None:
    evaluation = begin(store, 3)
    worker = store.workers.begin(WorkerInfo("w", "host", 1))
    store.loads.begin(worker, "model", "", 2.0, evaluation_id=evaluation.id)
    store.results.write(results(evaluation, rows(3), failed(usage=(Usage("m", 1),))), worker)
    store.rows.retry_failed(evaluation.id)
    store.results.write(results(evaluation, rows(3), done()), worker)

    store.experiments.delete(evaluation.experiment.name)

    with store._database.read() as connection:
        left = {table.name: connection.scalar(select(func.count()).select_from(table)) for table in ALL}
    assert {name for name, count in left.items() if count} == {WORKER.name, RESOURCE_LOAD.name}
    with pytest.raises(NotFoundError):
        store.experiments.delete(evaluation.experiment.name)


def test_a_late_result_for_a_deleted_experiment_reaches_no_other(store: Store) -> None:
    old = begin(store, 2)
    store.experiments.delete(old.experiment.name)
    new = begin(store, 2)
    assert new.id != old.id
    for outcome in (done(), done(usage=(Usage("m", 1),))):
        assert store.results.write(results(old, rows(2), outcome), None) == 0
    assert store.evaluations.counts(new.id).finished == 0
    assert store.usage.report(new.experiment).models == []


def test_the_baseline_of_a_store(store: Store) -> None:
    first, second = store.experiments.begin("first"), store.experiments.begin("second")
    assert store.baseline.find() is None
    store.baseline.set(first)
    store.baseline.set(second)
    found = store.baseline.find()
    assert found is not None
    assert found[0] == second
    assert abs((store.now() - found[1]).total_seconds()) < 60
    assert [line.labels.is_baseline for line in store.experiments.overviews("first")] == [False]
    assert store.labels.of(second).is_baseline
    with pytest.raises(UsageError, match="is the baseline"):
        store.experiments.delete("second")
    assert store.experiments.rename("second", "third").id == second.id
    assert store.baseline.named("baseline") == "third"
    store.baseline.clear()
    store.experiments.delete("third")
    assert [line.experiment.name for line in store.experiments.overviews()] == ["first"]

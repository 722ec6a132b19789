"""Evaluations in the store: identity, changes, status and the publish cursor."""

from __future__ import annotations

from dataclasses import replace

import pytest

from doteval.core.client_config import CacheChoice, CacheMode
from doteval.core.experiments import Counts, EvaluationStatus
from doteval.core.run_config import RunConfig
from doteval.errors import ChangedError, NotFoundError
from doteval.store import Store
from tests.support.store_workload import SPEC, begin, counted, done, in_threads, results, rows, sample


def test_an_evaluation_comes_back_as_it_was_given(store: Store) -> None:
    experiment = store.experiments.begin("e")
    config = RunConfig(
        root="/evals/ü\x00\ud800", cache=CacheChoice(CacheMode.REFRESH, 2.5), max_cost=0.1, submitted=True
    )
    spec = replace(SPEC, name="eval_qa[ü\x00\ud800]", config=config)
    evaluation = store.evaluations.begin(experiment, spec, epochs=3)
    assert evaluation.spec == spec
    assert evaluation.status is EvaluationStatus.RUNNING
    assert evaluation.counts == Counts(total=None)
    assert evaluation.experiment == experiment
    assert store.evaluations.by_uid(evaluation.uid) == evaluation
    assert store.evaluations.begin(experiment, spec, epochs=3) == evaluation


def test_threads_that_begin_the_same_evaluation_get_the_same_one(store: Store) -> None:
    experiment = store.experiments.begin("e")
    assert len({evaluation.uid for evaluation in in_threads(lambda _: store.evaluations.begin(experiment, SPEC))}) == 1


def test_uids_differ_between_experiments(store: Store) -> None:
    assert begin(store, name="a").uid != begin(store, name="b").uid


def test_changed_files_and_columns_are_named(store: Store) -> None:
    experiment = store.experiments.begin("e")
    old = replace(SPEC, fingerprint={"eval.py": "1", "gone.py": "1", "same.py": "1"})
    new = replace(SPEC, columns=("text",), fingerprint={"eval.py": "2", "new.py": "1", "same.py": "1"})
    begun = store.evaluations.begin(experiment, old)
    with pytest.raises(ChangedError) as raised:
        store.evaluations.begin(experiment, new)
    message = raised.value.message
    for part in ("eval.py has changed", "gone.py is gone", "new.py is new", "the columns were text, expected"):
        assert part in message
    assert "same.py" not in message
    assert store.evaluations.by_uid(begun.uid).spec == old

    changed = store.evaluations.begin(experiment, new, allow_changed=True)
    assert changed.uid == begun.uid
    assert changed.spec == new
    assert store.evaluations.begin(experiment, new).spec == new


def test_more_epochs_go_on_and_fewer_are_a_change(store: Store) -> None:
    evaluation = begin(store, 2, epochs=2)
    both = [sample(row, number) for row in rows(2) for number in range(2)]
    assert store.results.write(results(evaluation, both), None) == 4
    store.evaluations.begin(evaluation.experiment, SPEC, epochs=3)
    assert store.evaluations.counts(evaluation.id) == Counts(total=6, done=4)

    with pytest.raises(ChangedError, match="began with 3 epochs"):
        store.evaluations.begin(evaluation.experiment, SPEC, epochs=1)
    store.evaluations.begin(evaluation.experiment, SPEC, epochs=1, allow_changed=True)
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(total=2, done=2)


def test_begin_for_a_deleted_experiment(store: Store) -> None:
    experiment = store.experiments.begin("e")
    store.experiments.delete("e")
    with pytest.raises(NotFoundError, match="deleted"):
        store.evaluations.begin(experiment, SPEC)


def test_status_and_reason(store: Store) -> None:
    evaluation = begin(store)
    assert store.evaluations.set_status(evaluation.id, EvaluationStatus.FAILED, "nul \x00 and \udfff")
    stopped = store.evaluations.by_uid(evaluation.uid)
    assert (stopped.status, stopped.reason) == (EvaluationStatus.FAILED, "nul \x00 and \udfff")
    assert stopped.finished_at is not None
    assert stopped.finished_at >= stopped.created_at

    again = begin(store)
    assert (again.status, again.reason, again.finished_at) == (EvaluationStatus.RUNNING, None, None)


def test_only_one_of_many_callers_changes_a_status(store: Store) -> None:
    evaluation = begin(store)

    def complete(_: int) -> bool:
        return store.evaluations.set_status(
            evaluation.id, EvaluationStatus.COMPLETED, only_from=EvaluationStatus.RUNNING
        )

    assert sorted(in_threads(complete)) == [False] * 7 + [True]
    assert not store.evaluations.set_status(evaluation.id + 1, EvaluationStatus.CANCELLED)


def test_the_publish_cursor_moves_once_for_each_step(store: Store) -> None:
    evaluation = begin(store)
    assert store.evaluations.published(evaluation.id) == 0
    moved = in_threads(lambda _: store.evaluations.advance_published(evaluation.id, 0, 100))
    assert sorted(moved) == [False] * 7 + [True]
    assert store.evaluations.published(evaluation.id) == 100
    assert store.evaluations.advance_published(evaluation.id, 100, 250)
    assert store.evaluations.published(evaluation.id) == 250


def test_evaluations_of_an_experiment_in_order(store: Store) -> None:
    experiment = store.experiments.begin("e")
    names = [f"eval_{number}" for number in (3, 1, 2)]
    for name in names:
        store.evaluations.begin(experiment, replace(SPEC, name=name))
    begin(store, name="another")
    assert [evaluation.name for evaluation in store.evaluations.of(experiment)] == names


def test_evaluations_that_do_not_exist(store: Store) -> None:
    with pytest.raises(NotFoundError, match="cafe"):
        store.evaluations.by_uid("cafe")
    for ask in (store.evaluations.counts, store.evaluations.published, store.rows.dataset_state):
        with pytest.raises(NotFoundError):
            ask(12345)


def test_counts_come_from_every_worker(store: Store) -> None:
    evaluation = begin(store, 30)
    for worker in range(3):
        store.results.write(results(evaluation, rows(10, first=worker * 10), done()), worker + 1)
    assert store.evaluations.counts(evaluation.id) == Counts(total=30, done=30)
    assert store.evaluations.by_uid(evaluation.uid).counts == Counts(total=30, done=30)

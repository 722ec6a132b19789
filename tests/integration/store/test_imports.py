"""Evaluations whose results are imported: how they begin, end, and are given up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from doteval.core.experiments import Ending, Evaluation, EvaluationSpec, EvaluationStatus
from doteval.core.results import Outcome, Row, RowStatus, Score
from doteval.core.run_config import RunConfig
from doteval.core.states import EvaluationEnd
from doteval.errors import NotFoundError, UsageError
from doteval.store import NewResult, Store
from doteval.store.imports import Obstacle

BEGAN = datetime(2026, 11, 1, 10, tzinfo=UTC)
SPEC = EvaluationSpec("tool", "task", (), config=RunConfig(imported_from="/logs/a.eval"))


def begun(store: Store, name: str = "old", began_at: datetime | None = BEGAN) -> Evaluation:
    return store.evaluations.by_uid(store.imports.begin(name, SPEC, epochs=1, began_at=began_at))


def filled(store: Store, evaluation: Evaluation) -> None:
    row = Row(0, "key", {"id": 1})
    store.rows.add(evaluation.id, [row])
    outcome = Outcome(RowStatus.DONE, 0.0, 1.0, (Score("right", True, ["accuracy"]),))
    store.results.write([NewResult(evaluation.id, row, outcome)], None)


def ended(store: Store, evaluation: Evaluation, ending: Ending | None = None, ended_at: datetime | None = None) -> None:
    store.imports.end(
        evaluation.id, ending, columns=["id"], rows=1, rows_hash="h", ended_at=ended_at, notes=["from a.eval"]
    )


def test_an_import_has_the_times_of_its_log(store: Store) -> None:
    evaluation = begun(store)
    assert evaluation.status is EvaluationStatus.RUNNING
    filled(store, evaluation)
    ended(store, evaluation, ended_at=BEGAN.replace(minute=2))
    found = store.evaluations.by_uid(evaluation.uid)
    assert (found.status, found.created_at, found.finished_at) == (
        EvaluationStatus.COMPLETED,
        BEGAN,
        BEGAN.replace(minute=2),
    )
    assert (found.counts.done, found.counts.total, found.spec.columns) == (1, 1, ("id",))
    assert (found.dataset_notes, found.rows_hash) == (("from a.eval",), "h")
    assert store.experiments.find("old").created_at == BEGAN
    assert store.evaluations.work_time(evaluation.id).worked == 120.0
    # The next log of the experiment is an earlier one.
    other = EvaluationSpec("tool", "another", (), config=RunConfig(imported_from="/logs/b.eval"))
    store.imports.begin("old", other, epochs=1, began_at=BEGAN.replace(hour=9))
    assert store.experiments.find("old").created_at == BEGAN.replace(hour=9)


def test_an_end_before_the_beginning_and_no_times(store: Store) -> None:
    evaluation = begun(store)
    ending = Ending(EvaluationStatus.CANCELLED, EvaluationEnd.INTERRUPTED, "it was cut off")
    ended(store, evaluation, ending, BEGAN.replace(hour=9))
    found = store.evaluations.by_uid(evaluation.uid)
    assert (found.status, found.reason, found.finished_at) == (EvaluationStatus.CANCELLED, "it was cut off", BEGAN)
    ended(store, begun(store, "new", None))
    (found,) = store.evaluations.of(store.experiments.find("new"))
    assert found.finished_at is not None
    assert found.finished_at >= found.created_at


def test_what_is_in_the_way(store: Store) -> None:
    assert store.imports.obstacle("old", SPEC) is None
    evaluation = begun(store)
    assert store.imports.obstacle("old", SPEC) is None
    ended(store, evaluation)
    message = "the experiment 'old' has tool::task already, imported from /logs/a.eval"
    assert store.imports.obstacle("old", SPEC) == Obstacle(message, "/logs/a.eval")
    with pytest.raises(UsageError, match="has tool::task already"):
        begun(store)
    store.evaluations.begin(store.experiments.begin("own"), EvaluationSpec("eval_x.py", "eval_x", ()))
    with pytest.raises(UsageError, match="'own' was run here, and holds no imported results"):
        begun(store, "own")
    with pytest.raises(UsageError, match=r"'old' cannot run evaluations: its results were imported from /logs/a.eval"):
        store.experiments.begin("old")


def test_a_second_import_replaces_what_was_left(store: Store) -> None:
    left = begun(store)
    filled(store, left)
    again = begun(store)
    assert [each.uid for each in store.evaluations.of(again.experiment)] == [again.uid]
    assert (again.counts.done, store.rows.keys(left.id, 0, 9)) == (0, {})
    # The first one, if it lives after all, writes nothing any more.
    with pytest.raises(NotFoundError):
        filled(store, left)


def test_an_import_that_fails_leaves_nothing(store: Store) -> None:
    evaluation = begun(store)
    filled(store, evaluation)
    store.imports.abandon(evaluation.id)
    store.imports.abandon(evaluation.id)
    assert store.experiments.overviews() == []
    ended(store, begun(store))
    other = EvaluationSpec("tool", "another", (), config=RunConfig(imported_from="/logs/b.eval"))
    failed = store.evaluations.by_uid(store.imports.begin("old", other, epochs=1, began_at=None))
    store.imports.abandon(failed.id)
    assert [each.name for each in store.evaluations.of(failed.experiment)] == ["task"]

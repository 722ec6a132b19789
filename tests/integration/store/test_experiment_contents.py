"""Parts of an experiment: pages of its evaluations, sums, failures and worker processes."""

from __future__ import annotations

import pytest

from doteval.core.experiments import Counts, Evaluation, EvaluationStatus
from doteval.core.results import ErrorClass
from doteval.store import NewResult, Store, WorkerInfo
from doteval.store.experiment_contents import EVALUATION_SORTS, EvaluationChoice
from tests.support.comparisons import FAILED, PATH, PENDING, add_experiment
from tests.support.store_workload import begin, done, results, rows


@pytest.fixture
def evaluations(store: Store) -> list[Evaluation]:
    found = [
        add_experiment(store, "first", {"match": [True, False, FAILED]}, name="eval_b[x]"),
        add_experiment(store, "first", {"match": [True, True, True]}, name="eval_A[100%]"),
        add_experiment(store, "first", {"match": [True, PENDING]}, name="eval_c", status=EvaluationStatus.RUNNING),
    ]
    for each in found[:2]:
        store.summaries.write(each, [store.summary(each)])
    add_experiment(store, "second", {"match": [FAILED]})
    return found


def names(
    store: Store, evaluations: list[Evaluation], choice: EvaluationChoice, first: int = 0, limit: int = 9
) -> list[str]:
    return [each.name for each in store.contents.page(evaluations[0].experiment, choice, first, limit)]


def test_a_page_of_evaluations_is_sorted(store: Store, evaluations: list[Evaluation]) -> None:
    assert names(store, evaluations, EvaluationChoice()) == ["eval_b[x]", "eval_A[100%]", "eval_c"]
    assert names(store, evaluations, EvaluationChoice(sort="-score")) == ["eval_A[100%]", "eval_b[x]", "eval_c"]
    assert names(store, evaluations, EvaluationChoice(sort="-failed"), limit=1) == ["eval_b[x]"]
    assert names(store, evaluations, EvaluationChoice(sort="-began"), first=2) == ["eval_b[x]"]
    for sort in EVALUATION_SORTS:
        assert len(names(store, evaluations, EvaluationChoice(sort=f"-{sort}"))) == 3


def test_evaluations_are_found(store: Store, evaluations: list[Evaluation]) -> None:
    experiment = evaluations[0].experiment
    for choice, found in (
        (EvaluationChoice("EVAL_a"), ["eval_A[100%]"]),
        (EvaluationChoice("0%"), ["eval_A[100%]"]),
        (EvaluationChoice("_b%x"), []),
        (EvaluationChoice("eval_qa.py::eval_c"), ["eval_c"]),
        (EvaluationChoice(status=EvaluationStatus.RUNNING), ["eval_c"]),
    ):
        assert names(store, evaluations, choice) == found
        assert store.contents.count(experiment, choice) == len(found)


def test_sums(store: Store, evaluations: list[Evaluation]) -> None:
    experiment = evaluations[0].experiment
    totals = store.contents.totals(experiment)
    assert totals.statuses == {EvaluationStatus.COMPLETED: 2, EvaluationStatus.RUNNING: 1}
    assert totals.counts == Counts(8, done=6, failed=1)
    assert totals.tokens == 6 * 13
    assert totals.cost == pytest.approx(6 * 0.05)
    assert totals.is_running
    spent = store.contents.spent(evaluations)
    assert spent[evaluations[1].id] == (pytest.approx(3 * 0.05), 39)
    empty = store.contents.totals(store.experiments.begin("empty"))
    assert (empty.evaluations, empty.counts, empty.active_at) == (0, Counts(), None)


def test_cells_have_the_first_metric(store: Store, evaluations: list[Evaluation]) -> None:
    cells = store.contents.cells(evaluations[0].experiment, 10)
    assert [(cell.name, cell.metric, cell.value) for cell in cells] == [
        ("eval_b[x]", "match accuracy", pytest.approx(1 / 3)),
        ("eval_A[100%]", "match accuracy", 1.0),
    ]
    # After a retry the stored value is that of other results.
    store.evaluations.set_status(evaluations[1].id, EvaluationStatus.RUNNING)
    assert store.contents.cells(evaluations[0].experiment, 10)[1].metric is None


def test_failures_are_grouped(store: Store, evaluations: list[Evaluation]) -> None:
    (group,) = store.contents.failures(evaluations[0].experiment, 10)
    assert (group.type, group.error_class, group.rows, group.evaluations) == ("ValueError", ErrorClass.EVALUATION, 1, 1)
    assert group.example == (f"{PATH}::eval_b[x]", 2)


def test_worker_processes_with_their_loads(store: Store) -> None:
    evaluation = begin(store, 3)
    ids = [store.workers.begin(WorkerInfo("w", "host", pid)) for pid in (1, 2, 3)]
    for row, worker in zip(rows(3), (ids[1], ids[1], ids[0]), strict=True):
        store.results.write(results(evaluation, [row], done()), worker)
    load = store.loads.begin(ids[1], "model", "", 2.5)
    assert load
    found = store.contents.workers(evaluation.experiment, 10)
    assert [(each.name, each.done) for each in found] == [("w host:1", 1), ("w host:2", 2)]
    assert [(each.fixture, each.seconds, each.error) for each in found[1].loads] == [("model", 2.5, None)]
    assert len(store.contents.workers(evaluation.experiment, 1)) == 1


def test_loads_of_a_fixture(store: Store) -> None:
    evaluation = begin(store, 1)
    workers = [store.workers.begin(WorkerInfo("w", "host", pid)) for pid in (1, 2)]
    first = store.loads.begin(workers[0], "model", "", 2.0, evaluation_id=evaluation.id)
    store.loads.end(first, {"calls": 3}, 0.5)
    store.loads.begin(workers[1], "model", "sub", 4.0, evaluation_id=evaluation.id)
    store.loads.begin(workers[1], "other", "", 1.0, evaluation_id=evaluation.id)
    totals = store.contents.fixture_totals(evaluation.experiment, "model")
    assert (totals.loads, totals.failed, totals.torn_down) == (2, 0, 1)
    assert (totals.seconds, totals.longest) == (6.0, 4.0)
    newest, oldest = store.contents.fixture_loads(evaluation.experiment, "model", 0, 10)
    assert (newest.worker, newest.defined_at, newest.stats, newest.torn_down_at) == ("w host:2", "sub", None, None)
    assert (oldest.worker, oldest.stats, oldest.teardown_seconds) == ("w host:1", {"calls": 3}, 0.5)
    assert store.contents.fixture_loads(evaluation.experiment, "model", 1, 10) == [oldest]
    assert store.contents.fixture_totals(store.experiments.begin("empty"), "model").loads == 0


def test_headlines_are_of_the_first_evaluation_that_has_ended(store: Store, evaluations: list[Evaluation]) -> None:
    second = store.experiments.find("second")
    found = store.summaries.headlines([evaluations[0].experiment, second], 3)
    assert set(found) == {evaluations[0].experiment.id}
    ((score, metric),) = found[evaluations[0].experiment.id]
    assert (score, metric.name, metric.value) == ("match", "accuracy", pytest.approx(1 / 3))
    # Further results make the stored values those of earlier ones.
    row = rows(1)[0]
    store.results.write([NewResult(evaluations[0].id, row, done())], None)
    assert store.summaries.headlines([evaluations[0].experiment], 3)

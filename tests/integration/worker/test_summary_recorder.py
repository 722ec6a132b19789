"""Worker processes store the metrics of evaluations that have ended where no submitter does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest

from doteval.coordination.ended_evaluations import compute_summary, store_missing_summaries, summary_of
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.results import Score
from doteval.core.run_config import RunConfig
from doteval.errors import CodeMismatchError
from doteval.metrics import metric
from doteval.store import Store
from doteval.worker.code_match import CodeMatch
from doteval.worker.summary_recorder import SummaryRecorder
from tests.support.project import wait_until
from tests.support.store_workload import SPEC, done, failed, results, rows


class CodeOf:
    """In place of a `CodeMatch`: has the code of the evaluations whose uids it is given."""

    def __init__(self, *uids: str) -> None:
        self._uids = uids

    def match(self, evaluation: Evaluation) -> object:
        if evaluation.uid not in self._uids:
            raise CodeMismatchError("other code")
        return object()


@metric
def share_of_long() -> Any:
    return lambda scores: sum(score > 3 for score in scores) / len(scores)


def evaluation_of(store: Store, name: str, *, submitted: bool = True, private: str | None = None) -> Evaluation:
    """An evaluation with two results of three, cancelled."""
    spec = replace(SPEC, config=RunConfig(submitted=submitted, private_broker=private))
    evaluation = store.evaluations.begin(store.experiments.begin(name), spec)
    store.rows.add(evaluation.id, rows(3))
    store.rows.set_total(evaluation.id, 3, complete=True, fingerprint="f")
    scored = replace(done(), scores=(Score("length", 5, ("share_of_long",)),))
    store.results.write(results(evaluation, rows(1), scored), None)
    store.results.write(results(evaluation, rows(2)[1:], failed()), None)
    store.evaluations.set_status(evaluation.id, EvaluationStatus.CANCELLED)
    return store.evaluations.by_uid(evaluation.uid)


@pytest.fixture
def started() -> Iterator[list[SummaryRecorder]]:
    recorders: list[SummaryRecorder] = []
    yield recorders
    for recorder in recorders:
        recorder.stop(30)


def recorder_with(store: Store, *evaluations: Evaluation) -> SummaryRecorder:
    return SummaryRecorder(store, cast(CodeMatch, CodeOf(*(each.uid for each in evaluations))))


def value(store: Store, evaluation: Evaluation) -> float | None:
    """The stored value of the metric; -1.0 if none is stored."""
    summary = store.summaries.read(store.evaluations.by_uid(evaluation.uid))
    return -1.0 if summary is None else summary["length"]["share_of_long"]


def test_a_process_stores_what_it_has_ended_before_it_leaves(store: Store) -> None:
    evaluation = evaluation_of(store, "x")
    recorder = recorder_with(store, evaluation)
    recorder.ended(evaluation)
    recorder.start()
    recorder.stop(30)
    assert value(store, evaluation) == 0.5


def test_others_store_at_the_second_look_what_they_have_the_code_of(
    store: Store, started: list[SummaryRecorder]
) -> None:
    mine, others = evaluation_of(store, "mine"), evaluation_of(store, "others")
    of_pytest = evaluation_of(store, "pytest", submitted=False)
    private = evaluation_of(store, "private", private="p1")
    recorder = recorder_with(store, mine, of_pytest, private)
    started.append(recorder)
    recorder.start()
    wait_until(lambda: value(store, mine) != -1.0, what="the stored value")
    assert value(store, mine) == 0.5
    assert [value(store, each) for each in (others, of_pytest, private)] == [-1.0, -1.0, -1.0]

    # A result that comes late, such as that of a row in flight when the experiment was cancelled.
    late = replace(done(), scores=(Score("length", 1, ("share_of_long",)),))
    store.results.write(results(mine, rows(3)[2:], late), None)
    wait_until(lambda: value(store, mine) not in (-1.0, 0.5), what="the value with the late result")
    assert value(store, mine) == pytest.approx(1 / 3)


def test_a_process_that_does_not_know_a_metric_stores_nothing(store: Store) -> None:
    evaluation = evaluation_of(store, "x")
    other = replace(done(), scores=(Score("length", 1, ("of_another_file",)),))
    store.results.write(results(evaluation, rows(3)[2:], other), None)
    evaluation = store.evaluations.by_uid(evaluation.uid)
    assert compute_summary(store, evaluation).unknown_metrics == ["of_another_file"]
    assert store.summaries.stored([evaluation]) == set()


def test_stored_values_are_used_until_they_are_computed_anew(store: Store) -> None:
    evaluation = evaluation_of(store, "x")
    running = store.evaluations.begin(store.experiments.begin("running"), SPEC)
    store_missing_summaries(store, [evaluation, running])
    assert store.summaries.stored([evaluation, running]) == {evaluation.id}
    wrong = compute_summary(store, evaluation)
    wrong = replace(wrong, scores=())
    store.summaries.write(evaluation, [wrong])
    assert summary_of(store, evaluation) == wrong
    assert compute_summary(store, evaluation)["length"]["share_of_long"] == 0.5
    assert summary_of(store, evaluation)["length"]["share_of_long"] == 0.5

"""Distributions as SQLite and PostgreSQL give them, in more than one window of rows."""

from __future__ import annotations

import pytest

from doteval.analysis.distributions import LogCounts, TimelineCounts
from doteval.core.results import ErrorClass, Outcome, Row, RowError, RowStatus, Score, Usage
from doteval.store import NewResult, Store, WorkerInfo, index_windows
from tests.support.store_workload import begin, rows

ODD = "lab\x00el \ud800 é"


def outcome(row: Row) -> Outcome:
    if row.index % 10 == 9:
        return Outcome(RowStatus.FAILED, 1e9 + row.index, 4.0, error=RowError("E", "no", ErrorClass.EVALUATION))
    if row.index % 10 == 8:
        return Outcome(RowStatus.SKIPPED, 1e9, 99.0, error=RowError("Skipped", "no"))
    scores = (
        Score("right", row.index % 2 == 0, ("accuracy",)),
        Score("grade", row.index % 5, ("mean",)),
        Score(ODD, ODD if row.index % 2 else "other", ()),
        Score("measure", row.index / 7, ("mean",)),
        Score("nan", float("nan"), ("mean",)),
    )
    used = (Usage("m", requests=1, prompt_tokens=90, completion_tokens=10), Usage("n", prompt_tokens=28))
    return Outcome(RowStatus.DONE, 1e9 + row.index, 1.0, scores, usage=used)


def test_distributions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_windows, "_FIRST_WINDOW", 7)
    monkeypatch.setattr(index_windows, "_LARGEST_WINDOW", 30)
    worker = store.workers.begin(WorkerInfo("service", "host", 7))
    evaluation = begin(store, 100)
    for first, writer in ((0, worker), (50, None)):
        new = [NewResult(evaluation.id, row, outcome(row)) for row in rows(50, first=first)]
        store.results.write(new, writer)

    scores = {each.name: each for each in store.distributions.scores(evaluation.id)}
    assert dict(scores["right"].values) == {"true": 40, "false": 40}
    assert scores["grade"].values == (("0", 20), ("1", 20), ("2", 20), ("3", 10), ("4", 10))
    assert (scores["grade"].least, scores["grade"].greatest) == (0, 4)
    assert dict(scores[ODD].values) == {ODD: 40, "other": 40}
    assert scores["measure"].histogram is not None
    assert sum(scores["measure"].histogram.counts) == 80
    assert scores["nan"].least is None
    assert list(scores) == ["right", "grade", ODD, "measure", "nan"]

    seconds, timeline = LogCounts(0.001), TimelineCounts()
    store.distributions.add_times(evaluation.id, seconds, timeline)
    assert seconds.total == 90
    assert seconds.quantile(0.5) == pytest.approx(1.0, rel=0.046)
    found = timeline.timeline()
    assert found is not None
    assert (sum(found.done), sum(found.failed)) == (80, 10)
    assert [(each, sum(counts)) for each, counts in found.workers] == [(None, 45), (worker, 45)]
    assert store.distributions.worker_names([worker]) == {worker: "host:7"}

    tokens = store.distributions.tokens(evaluation.id)
    assert tokens.total == 80
    assert tokens.quantile(0.5) == pytest.approx(128, rel=0.046)


def test_an_evaluation_without_results(store: Store) -> None:
    evaluation = begin(store, 3)
    assert store.distributions.scores(evaluation.id) == []
    assert store.distributions.tokens(evaluation.id).histogram is None
    timeline = TimelineCounts()
    store.distributions.add_times(evaluation.id, LogCounts(0.001), timeline)
    assert timeline.timeline() is None

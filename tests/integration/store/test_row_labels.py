"""Labels of rows: each person has one of a result, and they go where the result goes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import pytest

from doteval.core.row_labels import LabelJudgement
from doteval.errors import NotFoundError, UsageError
from doteval.store import NewResult, Store
from doteval.store.row_labels import RowLabelWriter
from tests.support.store_workload import begin, done, failed, results, rows


@pytest.fixture
def writer(store: Store) -> Iterator[RowLabelWriter]:
    with contextlib.closing(RowLabelWriter(store.raw_url)) as opened:
        yield opened


def said(store: Store, evaluation_id: int, index: int) -> list[tuple[str, str, str | None, bool]]:
    (record,) = store.results.of_row(evaluation_id, index)
    return [(each.person, each.judgement.value, each.note, each.of_earlier) for each in record.labels]


def test_each_person_has_a_label_and_changes_only_that(store: Store, writer: RowLabelWriter) -> None:
    evaluation = begin(store, 3)
    store.results.write(results(evaluation, rows(2)), None)
    before = store.row_labels.state(evaluation.id)
    writer.put(evaluation.id, 1, 0, person=" bob  b\x00 ", judgement=LabelJudgement.RIGHT, note="")
    writer.put(evaluation.id, 1, 0, person="Ann", judgement=LabelJudgement.RIGHT, note="")
    writer.put(evaluation.id, 1, 0, person="Ann", judgement=LabelJudgement.WRONG, note=" the \x00 year \ud800 ")
    assert said(store, evaluation.id, 1) == [
        ("Ann", "wrong", "the \x00 year \ud800", False),
        ("bob b\N{REPLACEMENT CHARACTER}", "right", None, False),
    ]
    (record,) = store.results.of_row(evaluation.id, 1)
    assert abs(record.labels[0].labelled_at - store.now()) < timedelta(minutes=1)
    assert [(key, sample, label.person) for key, sample, label in store.row_labels.of_evaluation(evaluation.id)] == [
        ("a1", 0, "Ann"),
        ("a1", 0, record.labels[1].person),
    ]
    assert store.row_labels.state(evaluation.id) != before
    writer.remove(evaluation.id, 1, 0, person="Ann")
    assert [each[0] for each in said(store, evaluation.id, 1)] == [record.labels[1].person]
    assert said(store, evaluation.id, 0) == []


def test_what_cannot_be_a_label_is_refused(store: Store, writer: RowLabelWriter) -> None:
    evaluation = begin(store, 3)
    store.results.write(results(evaluation, rows(1)), None)
    with pytest.raises(NotFoundError, match="row 2 has no result"):
        writer.put(evaluation.id, 2, 0, person="ann", judgement=LabelJudgement.RIGHT, note=None)
    for name, note in (("", None), ("\n ", None), ("x" * 101, None), ("ann", "x" * 4_001)):
        with pytest.raises(UsageError):
            writer.put(evaluation.id, 0, 0, person=name, judgement=LabelJudgement.RIGHT, note=note)
    assert store.row_labels.state(evaluation.id) == (0, 0.0)


def test_a_label_of_a_result_that_was_replaced_counts_no_more(store: Store, writer: RowLabelWriter) -> None:
    evaluation = begin(store, 1)
    (row,) = rows(1)
    store.results.write([NewResult(evaluation.id, row, failed())], None)
    writer.put(evaluation.id, 0, 0, person="ann", judgement=LabelJudgement.WRONG, note=None)
    assert store.selections.count(evaluation.id, store.selections.filter([evaluation], "label = 'wrong'")) == 1
    store.rows.retry_failed(evaluation.id)
    store.results.write([NewResult(evaluation.id, row, done())], None)
    assert said(store, evaluation.id, 0) == [("ann", "wrong", None, True)]
    assert list(store.row_labels.of_evaluation(evaluation.id)) == []
    for where, count in (("label = 'wrong'", 0), ("label = null", 1), ("label ~ 'w'", 0)):
        assert store.selections.count(evaluation.id, store.selections.filter([evaluation], where)) == count
    # The same person says it again, of the result that is there now.
    writer.put(evaluation.id, 0, 0, person="ann", judgement=LabelJudgement.RIGHT, note=None)
    assert said(store, evaluation.id, 0) == [("ann", "right", None, False)]


def test_labels_are_renamed_and_deleted_with_the_experiment(store: Store, writer: RowLabelWriter) -> None:
    evaluation = begin(store, 1)
    store.results.write(results(evaluation, rows(1)), None)
    writer.put(evaluation.id, 0, 0, person="ann", judgement=LabelJudgement.RIGHT, note=None)
    store.experiments.rename("an experiment", "another")
    assert len(said(store, evaluation.id, 0)) == 1
    store.experiments.delete("another")
    assert store.row_labels.state(evaluation.id) == (0, 0.0)

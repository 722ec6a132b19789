"""Results in the store: the first one wins, retries replace failed ones, and nothing counts twice."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy
import pytest
from sqlalchemy import select

from doteval.analysis.summary import ScoreColumn
from doteval.core.experiments import Counts
from doteval.core.json_codec import decode
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.errors import UnstorableValueError
from doteval.store import ErrorCount, NewResult, Store, WorkerInfo
from doteval.store.result_rows import _number, encode_result, write_results
from doteval.store.tables import ATTEMPT, RESULT, SCORE
from tests.support.commands import Commands
from tests.support.store_workload import (
    begin,
    counted,
    done,
    failed,
    in_processes,
    in_threads,
    results,
    rows,
    sample,
    skipped,
    write_everything,
)

EVERYTHING = Outcome(
    RowStatus.DONE,
    1_700_000_000.125,
    1.5,
    (
        Score("exact_match", True, ("accuracy",)),
        Score("length\x00", 12.5, ("mean", "stdev"), {"why": ("a", 1)}),
        Score("label", "yes", (), {}),
        Score("nothing", None, ()),
    ),
    prompt=[{"role": "user", "content": "nul \x00 \ud800 'quotes' %s \\ 日本"}],
    model_response={"text": "ok", "raw": b"\x00\xff", "nan": float("inf")},
    metadata={"n": 3},
    usage=(
        Usage("gpt", 1, 2, 3, 4, 5, 6, 7, 8, 9, 0.25, 1.5),
        Usage("other\x00", cost=None),
    ),
)


def test_a_record_is_what_was_written(store: Store) -> None:
    evaluation = begin(store, 2)
    worker = store.workers.begin(WorkerInfo("service", "host", 42))
    error = Outcome(
        RowStatus.FAILED,
        2.0,
        0.5,
        (Score("s", False),),
        error=RowError("T\x00", "m \ud800", ErrorClass.TIMEOUT, "tb\x00"),
    )
    first, second = rows(2)
    assert store.results.write([NewResult(evaluation.id, first, EVERYTHING)], worker) == 1
    assert store.results.write([NewResult(evaluation.id, second, error)], None) == 1
    assert list(store.results.records(evaluation.id)) == [Record(first, EVERYTHING, "host:42"), Record(second, error)]


def test_the_first_result_wins(store: Store) -> None:
    evaluation = begin(store, 2)
    assert store.results.write(results(evaluation, rows(1), done("first")), 1) == 1
    assert store.results.write(results(evaluation, rows(2), done("second")), 2) == 1
    twice = results(evaluation, rows(2), failed()) * 2
    assert store.results.write(twice, 3) == 0
    assert store.results.score_columns(evaluation.id)[0].values == ["first", "second"]
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(2, done=2)
    assert store.results.write([], 1) == 0


def test_the_first_of_a_group_wins(store: Store) -> None:
    evaluation = begin(store, 1)
    both = results(evaluation, rows(1), done("first")) + results(evaluation, rows(1), failed())
    assert store.results.write(both, None) == 1
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(1, done=1)


def test_samples_are_results_of_their_own(store: Store) -> None:
    evaluation = begin(store, 2, epochs=2)
    new = [result for row in rows(2) for number in (1, 0) for result in results(evaluation, [sample(row, number)])]
    assert store.results.write(new, None) == 4
    places = [(record.row.index, record.row.sample) for record in store.results.records(evaluation.id)]
    assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_one_group_may_hold_several_evaluations(store: Store) -> None:
    one, two = begin(store, 2, name="one"), begin(store, 3, name="two")
    assert store.results.write(results(two, rows(3)) + results(one, rows(2), failed()), 1) == 5
    assert store.evaluations.counts(one.id) == counted(store, one) == Counts(2, failed=2)
    assert store.evaluations.counts(two.id) == counted(store, two) == Counts(3, done=3)


def test_a_retry_replaces_the_result_and_keeps_the_old_one_as_an_attempt(store: Store) -> None:
    evaluation = begin(store, 3, epochs=2)
    first = rows(3)[0]
    bad = replace(failed("old \x00 error"), scores=(Score("s\x1a", 0, ("mean",)),), prompt="asked")
    store.results.write(results(evaluation, [first, sample(first, 1)], bad), 1)
    store.rows.retry_failed(evaluation.id)

    assert store.results.write(results(evaluation, [first, first], done(1)), 2) == 1
    assert store.results.write(results(evaluation, [first], done(2)), 2) == 0
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(6, done=1)
    records = list(store.results.records(evaluation.id))
    assert [(record.row.sample, record.outcome.status) for record in records] == [
        (0, RowStatus.DONE),
        (1, RowStatus.FAILED),
    ]
    assert records[0].outcome == done(1)
    with store._database.read() as connection:
        (attempt,) = connection.execute(select(ATTEMPT)).all()
    assert (attempt.row_index, attempt.sample, attempt.worker_id) == (0, 0, 1)
    assert (attempt.error_type, attempt.error_message) == ("ValueError", "old \x00 error")
    assert decode(attempt.prompt) == "asked"
    assert decode(attempt.scores) == [{"name": "s\x1a", "metrics": '["mean"]', "value": "0", "extra": None}]


def test_a_retry_that_fails_again_can_be_retried_again(store: Store) -> None:
    evaluation = begin(store, 1)
    for message in ("one", "two", "three"):
        assert store.results.write(results(evaluation, rows(1), failed(message)), None) == 1
        assert store.results.errors(evaluation.id, 5) == [
            ErrorCount("ValueError", message, ErrorClass.EVALUATION, 1, 0)
        ]
        assert store.rows.retry_failed(evaluation.id) == 1
    assert store.results.write(results(evaluation, rows(1)), None) == 1
    assert store.rows.retry_failed(evaluation.id) == 0
    assert store.results.errors(evaluation.id, 5) == []


def test_a_result_for_content_that_was_replaced_is_not_stored(store: Store) -> None:
    evaluation = begin(store, 3)
    old = rows(3)
    store.rows.replace(evaluation.id, rows(1, version="b"))
    store.rows.truncate(evaluation.id, 2)
    assert store.results.write(results(evaluation, old), None) == 1
    assert [record.row for record in store.results.records(evaluation.id)] == [old[1]]


def test_a_group_with_a_value_that_cannot_be_stored_changes_nothing(store: Store) -> None:
    evaluation = begin(store, 2)
    bad = results(evaluation, rows(1)) + results(evaluation, rows(1, first=1), done(prompt={"client": object()}))
    with pytest.raises(UnstorableValueError, match=r"the prompt: a value of type builtins.object at \['client'\]"):
        store.results.write(bad, None)
    assert store.evaluations.counts(evaluation.id) == Counts(2)


@pytest.mark.parametrize("group", [1, 37])
def test_threads_that_write_the_same_rows_keep_each_once(store: Store, group: int) -> None:
    evaluation = begin(store, 150)
    new = results(evaluation, rows(150))

    def write(worker: int) -> int:
        order = new if worker % 2 else new[::-1]
        return sum(store.results.write(order[at : at + group], worker + 1) for at in range(0, 150, group))

    assert sum(in_threads(write)) == 150
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(150, done=150)
    assert len(store.results.score_columns(evaluation.id)[0].values) == 150


def test_threads_that_retry_the_same_rows_keep_each_once(store: Store) -> None:
    evaluation = begin(store, 100)
    store.results.write(results(evaluation, rows(100), failed()), None)
    store.rows.retry_failed(evaluation.id)
    new = results(evaluation, rows(100))

    def write(worker: int) -> int:
        order = new if worker % 2 else new[::-1]
        return sum(store.results.write(order[at : at + 30], worker + 1) for at in range(0, 100, 30))

    assert sum(in_threads(write)) == 100
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(100, done=100)
    assert len(store.results.score_columns(evaluation.id)[0].values) == 100


def test_processes_that_write_the_same_rows_keep_each_once(store: Store, store_url: str, commands: Commands) -> None:
    evaluation = begin(store, 3000)
    work = [(store.raw_url, evaluation.uid, 3000, group, group == 10) for group in (10, 100, 333, 500)]
    assert sum(in_processes(commands, write_everything, work)) == 3000
    counts = store.evaluations.counts(evaluation.id)
    assert counts == counted(store, evaluation)
    assert counts.finished == 3000
    (model,) = store.usage.report(evaluation.experiment).models
    assert (model.usage.requests, model.spent.requests) == (counts.done, 9000)


def test_writers_and_retries_at_once_lose_no_count(store: Store) -> None:
    evaluation = begin(store, 60)
    new = [replace(result, outcome=failed()) for result in results(evaluation, rows(60))]

    def work(worker: int) -> None:
        for at in range(0, 60, 6):
            if worker % 2:
                store.rows.retry_failed(evaluation.id)
            else:
                store.results.write(new[at : at + 12], worker)

    in_threads(work)
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation)


@pytest.mark.parametrize("change", ["replace", "truncate", "delete"])
def test_a_change_of_rows_waits_for_results_that_are_being_written(store: Store, change: str) -> None:
    evaluation = begin(store, 3)
    changes: dict[str, Callable[[], None]] = {
        "replace": lambda: store.rows.replace(evaluation.id, rows(3, version="b")),
        "truncate": lambda: store.rows.truncate(evaluation.id, 0),
        "delete": lambda: store.experiments.delete(evaluation.experiment.name),
    }
    changing = threading.Thread(target=changes[change])
    with store._database.write() as connection:
        new = [encode_result(result) for result in results(evaluation, rows(3))]
        assert write_results(store._database, connection, new, 1) == 3
        changing.start()
        changing.join(0.2)
        assert changing.is_alive()
    changing.join(60)
    # If it had not waited, it would have missed these results, which would stay in the store.
    with store._database.read() as connection:
        assert connection.execute(select(RESULT)).all() == []
        assert connection.execute(select(SCORE)).all() == []
    if change != "delete":
        assert store.evaluations.counts(evaluation.id).finished == 0


def test_records_in_pages(store: Store) -> None:
    evaluation = begin(store, 1203)
    odd = [row for row in rows(1203) if row.index % 2]
    even = [row for row in rows(1203) if row.index % 2 == 0]
    store.results.write(results(evaluation, odd, skipped()), None)
    store.results.write(results(evaluation, even), None)

    assert [record.row for record in store.results.records(evaluation.id)] == rows(1203)
    assert [record.row for record in store.results.records(evaluation.id, status=RowStatus.DONE)] == even
    assert [record.row for record in store.results.records(evaluation.id, status=RowStatus.SKIPPED)] == odd
    assert list(store.results.records(evaluation.id, status=RowStatus.PENDING)) == []
    some = store.results.records(evaluation.id, first=1100, limit=3)
    assert [record.row.index for record in some] == [1100, 1101, 1102]
    many = store.results.records(evaluation.id, status=RowStatus.DONE, first=1, limit=501)
    assert [record.row.index for record in many] == list(range(2, 1004, 2))
    assert list(store.results.records(evaluation.id, limit=0)) == []
    assert len(list(store.results.records(evaluation.id, limit=1000))) == 1000


def test_score_columns_hold_done_rows_in_order(store: Store) -> None:
    evaluation = begin(store, 4)
    one, two, three, four = rows(4)
    store.results.write(
        [
            NewResult(evaluation.id, two, replace(done(), scores=(Score("a", 0.5, ("mean",)), Score("b", (1, 2))))),
            NewResult(evaluation.id, one, replace(done(), scores=(Score("a", 1, ("mean", "median")),))),
            NewResult(evaluation.id, three, replace(failed(), scores=(Score("a", 9, ("mean",)),))),
            NewResult(evaluation.id, four, replace(skipped(), scores=(Score("c", 9),))),
        ],
        None,
    )
    assert store.results.score_columns(evaluation.id) == [
        ScoreColumn("a", ("mean", "median"), [1, 0.5]),
        ScoreColumn("b", (), [(1, 2)]),
    ]


def test_errors_are_grouped(store: Store) -> None:
    evaluation = begin(store, 8)
    long = "x" * 250
    given = [failed(), failed(long), failed(long + "y"), failed(long), skipped(), done()]
    for row, outcome in zip(rows(6), given, strict=True):
        store.results.write([NewResult(evaluation.id, row, outcome)], None)
    late = Outcome(RowStatus.FAILED, 0.0, 0.0, error=RowError("E", "\x00", ErrorClass.CRASH))
    store.results.write([NewResult(evaluation.id, Row(6, "a6", {}), late)], None)

    errors = store.results.errors(evaluation.id, 10)
    assert errors == [
        ErrorCount("ValueError", "x" * 200, ErrorClass.EVALUATION, 3, 1),
        ErrorCount("ValueError", "no answer", ErrorClass.EVALUATION, 1, 0),
        ErrorCount("E", "\x00", ErrorClass.CRASH, 1, 6),
    ]
    assert store.results.errors(evaluation.id, 1) == errors[:1]


def test_scores_are_stored_as_numbers_where_they_are_some(store: Store) -> None:
    class Odd:
        def __float__(self) -> float:
            raise RuntimeError("no")

    values = [
        True,
        False,
        3,
        2.5,
        "label",
        None,
        math.nan,
        math.inf,
        numpy.float64(0.25),
        ("a", "a"),
        ("a", "b"),
        10**400,
    ]
    evaluation = begin(store, len(values))
    store.results.write(
        [NewResult(evaluation.id, row, done(value)) for row, value in zip(rows(len(values)), values, strict=True)], None
    )
    with store._database.read() as connection:
        found = connection.execute(select(SCORE.c.number).order_by(SCORE.c.row_index)).scalars().all()
    assert found == [1.0, 0.0, 3.0, 2.5, None, None, None, None, 0.25, 1.0, 0.0, None]
    assert _number(Odd()) is None

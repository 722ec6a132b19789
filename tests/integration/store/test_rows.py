"""Rows in the store: adding, pending rows, retries and changed datasets."""

from __future__ import annotations

from itertools import islice, pairwise

import pytest

from doteval.core.experiments import Counts
from doteval.core.results import Row, RowStatus
from doteval.errors import NotFoundError, UnstorableValueError
from doteval.store import DatasetState, RowRange, Store
from tests.support.store_workload import (
    begin,
    counted,
    done,
    failed,
    in_threads,
    results,
    rows,
    sample,
    skipped,
)


def test_rows_come_back_with_their_values(store: Store) -> None:
    evaluation = begin(store)
    given = [Row(0, "k0", {"text": "nul \x00 \ud800", "expected": (1, b"\xff")}), Row(1, "k\x00", {"a": None})]
    store.rows.add(evaluation.id, given)
    assert store.rows.pending(evaluation.id, 0, 1) == given
    assert store.rows.keys(evaluation.id, 0, 10) == {0: "k0", 1: "k\x00"}
    assert store.rows.keys(evaluation.id, 1, 1) == {1: "k\x00"}


def test_adding_rows_twice_keeps_the_first(store: Store) -> None:
    evaluation = begin(store)
    in_threads(lambda _: store.rows.add(evaluation.id, rows(50)))
    store.rows.add(evaluation.id, rows(60, version="b"))
    keys = store.rows.keys(evaluation.id, 0, 99)
    assert keys == {index: f"{'a' if index < 50 else 'b'}{index}" for index in range(60)}
    store.rows.add(evaluation.id, [])


@pytest.mark.parametrize("count", [3, 1023, 1024, 1365, 2049])
def test_any_number_of_rows_and_results_comes_back(store: Store, count: int) -> None:
    evaluation = begin(store)
    given = rows(count)
    store.rows.add(evaluation.id, given[:5])
    store.rows.add(evaluation.id, given, so_far=count)
    assert store.rows.dataset_state(evaluation.id) == DatasetState(count, complete=False, fingerprint=None)
    assert store.rows.pending(evaluation.id, 0, count) == given
    assert store.results.write(results(evaluation, given[1:3]), None) == 2
    assert store.results.write(results(evaluation, given), None) == count - 2
    assert store.rows.pending(evaluation.id, 0, count) == []


def test_a_value_that_cannot_be_stored_names_row_and_column_but_no_content(store: Store) -> None:
    evaluation = begin(store)
    bad = [*rows(3), Row(3, "k", {"text": "secret", "image": [1, {"raw": open}]})]
    for write in (store.rows.add, store.rows.replace):
        with pytest.raises(UnstorableValueError, match=r"row 3: .*at \['image'\]\[1\]\['raw'\]") as raised:
            write(evaluation.id, bad)
        assert "secret" not in str(raised.value)
    assert store.rows.keys(evaluation.id, 0, 9) == {}


def test_rows_of_an_evaluation_that_is_gone(store: Store) -> None:
    for write in (store.rows.add, store.rows.replace):
        with pytest.raises(NotFoundError):
            write(77, rows(1))
    with pytest.raises(NotFoundError):
        store.rows.set_total(77, 1, complete=True, fingerprint=None)
    with pytest.raises(NotFoundError):
        store.rows.pending(77, 0, 1)
    with pytest.raises(NotFoundError):
        next(store.rows.pending_ranges(77, 10))
    with pytest.raises(NotFoundError):
        store.rows.count_pending_from(77, 0)


def test_the_state_of_a_dataset(store: Store) -> None:
    evaluation = begin(store)
    assert store.rows.dataset_state(evaluation.id) == DatasetState(0, complete=False, fingerprint=None)
    store.rows.add(evaluation.id, rows(7))
    assert store.rows.dataset_state(evaluation.id) == DatasetState(7, complete=False, fingerprint=None)
    assert store.evaluations.counts(evaluation.id).total is None
    store.rows.set_total(evaluation.id, 5, complete=False, fingerprint=None)
    assert store.rows.dataset_state(evaluation.id) == DatasetState(5, complete=False, fingerprint=None)
    store.rows.set_total(evaluation.id, 7, complete=True, fingerprint="abc")
    assert store.rows.dataset_state(evaluation.id) == DatasetState(7, complete=True, fingerprint="abc")
    assert store.evaluations.counts(evaluation.id) == Counts(total=7)


def test_notes_on_a_dataset_stay_until_others_are_stored(store: Store) -> None:
    evaluation = begin(store)
    assert store.evaluations.by_uid(evaluation.uid).dataset_notes == ()
    for stored, notes in ((["a \x00", "b"], ("a \x00", "b")), (None, ("a \x00", "b")), ([], ())):
        store.rows.set_total(evaluation.id, 7, complete=True, fingerprint=None, notes=stored)
        assert store.evaluations.by_uid(evaluation.uid).dataset_notes == notes


def test_pending_samples_are_those_without_a_result(store: Store) -> None:
    evaluation = begin(store, 3, epochs=2)
    first, second, third = rows(3)
    store.results.write(results(evaluation, [sample(first, 0), sample(first, 1), sample(second, 1)]), None)
    assert store.rows.pending(evaluation.id, 0, 9) == [second, third, sample(third, 1)]
    assert store.rows.pending(evaluation.id, 2, 2) == [third, sample(third, 1)]
    assert store.evaluations.counts(evaluation.id).pending == 3


@pytest.mark.parametrize("epochs", [1, 3])
def test_pending_rows_are_counted_as_they_are_read(store: Store, epochs: int) -> None:
    evaluation = begin(store, 9, epochs=epochs)
    some = [sample(row, number) for row in rows(9) for number in range(epochs) if (row.index + number) % 4]
    store.results.write(results(evaluation, some[::2]) + results(evaluation, some[1::2], failed()), None)
    store.rows.retry_failed(evaluation.id, index=5)
    for first in range(11):
        pending = len(store.rows.pending(evaluation.id, first, 9))
        assert store.rows.count_pending_from(evaluation.id, first) == pending
        assert store.rows.count_pending(evaluation.id, [RowRange(first, 9)]) == pending
    assert store.rows.count_pending_from(evaluation.id, 0) == store.evaluations.counts(evaluation.id).pending > 0


def test_ranges_cover_what_is_pending_in_order(store: Store) -> None:
    evaluation = begin(store, 100)
    finished = [row for row in rows(100) if row.index % 3 == 0 or 40 <= row.index < 60]
    store.results.write(results(evaluation, finished), None)
    pending = {row.index for row in rows(100)} - {row.index for row in finished}

    ranges = list(store.rows.pending_ranges(evaluation.id, 7))
    assert all(before.last < after.first for before, after in pairwise(ranges))
    held = [[index for index in sorted(pending) if part.first <= index <= part.last] for part in ranges]
    assert [len(part) for part in held[:-1]] == [7] * (len(held) - 1)
    assert {index for part in held for index in part} == pending
    assert all(part.first in pending and part.last in pending for part in ranges)
    assert [row.index for row in store.rows.pending(evaluation.id, ranges[2].first, ranges[2].last)] == held[2]


def test_a_range_spans_at_most_twenty_times_its_rows(store: Store) -> None:
    evaluation = begin(store, 100)
    keep = {0, 39, 40, 99}
    store.results.write(results(evaluation, [row for row in rows(100) if row.index not in keep]), None)
    assert list(store.rows.pending_ranges(evaluation.id, 2)) == [RowRange(0, 39), RowRange(40, 40), RowRange(99, 99)]


def test_ranges_from_an_index_and_only_so_many(store: Store) -> None:
    evaluation = begin(store, 50)
    assert list(store.rows.pending_ranges(evaluation.id, 10, first=25, limit=2)) == [RowRange(25, 34), RowRange(35, 44)]
    assert list(store.rows.pending_ranges(evaluation.id, 10, first=45)) == [RowRange(45, 49)]
    assert list(store.rows.pending_ranges(evaluation.id, 10, limit=0)) == []
    assert list(store.rows.pending_ranges(evaluation.id, 10, first=50)) == []


def test_missing_rows_are_in_no_range(store: Store) -> None:
    evaluation = begin(store)
    store.rows.add(evaluation.id, [*rows(5), *rows(5, first=7)])
    assert list(store.rows.pending_ranges(evaluation.id, 4)) == [RowRange(0, 3), RowRange(4, 9), RowRange(10, 11)]
    assert list(store.rows.pending_ranges(evaluation.id, 4, first=5)) == [RowRange(7, 10), RowRange(11, 11)]


def test_samples_count_as_rows_of_a_range(store: Store) -> None:
    evaluation = begin(store, 5, epochs=3)
    store.results.write(results(evaluation, [sample(rows(5)[1], 2)]), None)
    # 3 + 2 pending samples, then 3 + 3 would be one too many.
    assert list(store.rows.pending_ranges(evaluation.id, 5)) == [
        RowRange(0, 1),
        RowRange(2, 2),
        RowRange(3, 3),
        RowRange(4, 4),
    ]
    assert len(list(store.rows.pending_ranges(evaluation.id, 1))) == 5


def test_many_ranges_stream_and_may_change_on_the_way(store: Store) -> None:
    evaluation = begin(store, 12_000)
    ranges = store.rows.pending_ranges(evaluation.id, 100)
    seen = list(islice(ranges, 3))
    # No query stays open while a range is published, and rows that are finished meanwhile are left out.
    store.results.write(results(evaluation, rows(1000, first=11_000)), None)
    seen += ranges
    assert seen == [RowRange(first, first + 99) for first in range(0, 11_000, 100)]


def test_failed_rows_are_pending_again_and_keep_their_error(store: Store) -> None:
    evaluation = begin(store, 4)
    one, two, three, four = rows(4)
    store.results.write(
        [
            *results(evaluation, [one], done()),
            *results(evaluation, [two, three], failed()),
            *results(evaluation, [four], skipped()),
        ],
        5,
    )
    assert store.rows.retry_failed(evaluation.id) == 2
    assert store.rows.retry_failed(evaluation.id) == 0
    assert store.rows.pending(evaluation.id, 0, 9) == [two, three]
    assert list(store.rows.pending_ranges(evaluation.id, 1)) == [RowRange(1, 1), RowRange(2, 2)]
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(4, done=1, skipped=1)
    assert [record.row for record in store.results.records(evaluation.id, status=RowStatus.FAILED)] == [two, three]

    assert store.results.write(results(evaluation, [two], done()), 6) == 1
    assert store.rows.pending(evaluation.id, 0, 9) == [three]
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(4, done=2, skipped=1)


def test_threads_that_retry_count_each_row_once(store: Store) -> None:
    evaluation = begin(store, 40)
    store.results.write(results(evaluation, rows(40), failed()), None)
    assert sum(in_threads(lambda _: store.rows.retry_failed(evaluation.id))) == 40
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(40)


def test_replaced_rows_lose_their_results(store: Store) -> None:
    evaluation = begin(store, 4)
    store.results.write(results(evaluation, rows(3)) + results(evaluation, rows(1, first=3), failed()), 2)
    store.rows.replace(evaluation.id, rows(2, first=2, version="b"))
    assert store.rows.pending(evaluation.id, 0, 9) == rows(2, first=2, version="b")
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(4, done=2)
    assert store.results.score_columns(evaluation.id)[0].values == [True, True]
    assert store.results.errors(evaluation.id, 5) == []
    store.rows.replace(evaluation.id, [])


def test_a_shorter_dataset_removes_rows_and_results(store: Store) -> None:
    evaluation = begin(store, 6)
    store.results.write(results(evaluation, rows(5)) + results(evaluation, rows(1, first=5), failed()), 2)
    store.rows.retry_failed(evaluation.id)
    store.rows.truncate(evaluation.id, 2)
    store.rows.set_total(evaluation.id, 2, complete=True, fingerprint="g")
    assert store.rows.keys(evaluation.id, 0, 9) == {0: "a0", 1: "a1"}
    assert store.evaluations.counts(evaluation.id) == counted(store, evaluation) == Counts(2, done=2)

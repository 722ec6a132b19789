"""Rows that are chosen by their indexes: what is pending of them, what they used, how long they took."""

from __future__ import annotations

from doteval.core.results import Usage
from doteval.store import RowTime, RowUsage, Store
from tests.support.store_workload import begin, done, failed, results, rows


def test_pending_rows_among_some(store: Store) -> None:
    evaluation = begin(store, 10)
    store.results.write(results(evaluation, rows(4)), None)
    store.results.write(results(evaluation, rows(1, first=5), failed()), None)
    assert store.samples.pending(evaluation.id, [1, 5, 7, 9]) == [7, 9]
    assert store.samples.pending(evaluation.id, []) == []
    store.rows.retry_failed(evaluation.id)
    assert store.samples.pending(evaluation.id, [9, 5]) == [5, 9]


def test_all_executions_of_a_row_count(store: Store) -> None:
    evaluation = begin(store, 3)
    one = Usage("m", 1, 2, prompt_tokens=10, completion_tokens=5, cost=0.5, batch_cost=0.25)
    for _ in range(2):
        store.results.write(
            results(evaluation, rows(2), done(usage=(one, Usage("other", 1, 1, prompt_tokens=3)))), None
        )
    store.results.write(results(evaluation, rows(1, first=2), failed(usage=(one,))), None)
    assert sorted(store.samples.usage(evaluation.id, [0, 2]), key=lambda each: (each.row_index, each.model)) == [
        RowUsage(0, "m", 4, 20, 10, 1.0, 0.5, 0),
        RowUsage(0, "other", 2, 6, 0, None, None, 6),
        RowUsage(2, "m", 2, 10, 5, 0.5, 0.25, 0),
    ]
    seconds = done().seconds
    assert store.samples.times(evaluation.id, [0, 2]) == {
        0: RowTime(seconds, 1, 0),
        2: RowTime(failed().seconds, 1, 1),
    }

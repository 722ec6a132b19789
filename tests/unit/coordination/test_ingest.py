"""Ingest stores the rows of a dataset in order, in bounded memory, and compares them with stored ones."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from doteval.coordination import ingest
from doteval.coordination.ingest import Chunk, ingest_dataset
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.results import Outcome, Row, RowStatus, Score
from doteval.datasets import open_dataset
from doteval.errors import ChangedError, DatasetError, UnstorableValueError
from doteval.store import DatasetState, NewResult, Store

SPEC = EvaluationSpec("eval_it.py", "eval_it", ("text", "expected"), {"eval_it.py": "1"})


@pytest.fixture
def evaluation(store: Store) -> Evaluation:
    return store.evaluations.begin(store.experiments.begin("x"), SPEC)


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks are cut by their size alone, however slow the machine is."""
    monkeypatch.setattr(ingest, "_CHUNK_SECONDS", 3600.0)


def records(count: int, version: str = "a") -> list[tuple[str, int]]:
    return [(f"{version}{index}", index) for index in range(count)]


def take(store: Store, evaluation: Evaluation, source: Any, **options: Any) -> list[Chunk]:
    return list(ingest_dataset(store, evaluation, open_dataset(source), **options))


def stored(store: Store, evaluation: Evaluation) -> list[tuple[Any, ...]]:
    """All rows in the store, as tuples of their values."""
    return [tuple(row.values.values()) for row in store.rows.pending(evaluation.id, 0, 10**9)]


def finish(store: Store, evaluation: Evaluation, first: int, last: int) -> None:
    outcome = Outcome(RowStatus.DONE, 0.0, 0.0, (Score("ok", True, ["accuracy"]),))
    store.results.write(
        [NewResult(evaluation.id, row, outcome) for row in store.rows.pending(evaluation.id, first, last)], None
    )


def pending(store: Store, evaluation: Evaluation) -> list[int]:
    return [row.index for row in store.rows.pending(evaluation.id, 0, 10**9)]


@pytest.fixture
def chunks_of_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest, "_CHUNK_ROWS", 1000)
    monkeypatch.setattr(ingest, "_CHUNK_SECONDS", 60.0)


class Versioned:
    """A dataset that can tell its versions apart without being read."""

    columns = ("text", "expected")

    def __init__(self, rows: Iterable[Any], fingerprint: str) -> None:
        self.rows, self.fingerprint, self.read = rows, fingerprint, 0

    def __iter__(self) -> Iterator[Any]:
        self.read += 1
        return iter(self.rows)


def test_rows_are_stored_in_order_and_yielded_when_they_are(store: Store, evaluation: Evaluation) -> None:
    seen = 0
    for chunk in ingest_dataset(store, evaluation, open_dataset(records(2500))):
        assert (chunk.first, chunk.new) == (seen, True)
        seen = chunk.last + 1
        assert len(stored(store, evaluation)) == seen
        state = store.rows.dataset_state(evaluation.id)
        assert (state.rows, state.complete) == (seen, False)
    assert stored(store, evaluation) == records(2500)
    state = store.rows.dataset_state(evaluation.id)
    assert (state.rows, state.complete) == (2500, True)
    assert store.evaluations.counts(evaluation.id).total == 2500


def test_rows_may_be_dicts_or_tuples_and_too_long_or_too_short(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, [{"expected": 1, "text": "a", "more": 2}, {"text": "b"}, ("c", 3, "more"), ("d",), ()])
    rows = store.rows.pending(evaluation.id, 0, 9)
    assert [row.values for row in rows] == [
        {"text": "a", "expected": 1},
        {"text": "b", "expected": None},
        {"text": "c", "expected": 3},
        {"text": "d"},
        {},
    ]


def test_memory_is_bounded_however_many_rows_a_generator_gives(evaluation: Evaluation) -> None:
    class Rows:
        """Takes rows and forgets them, so that only the memory of the ingest is measured."""

        count = 0

        def dataset_state(self, _: int) -> DatasetState:
            return DatasetState(0, False, None)

        def keys(self, *_: int) -> dict[int, str]:
            return {}

        def add(self, _: int, rows: list[Row], **__: Any) -> None:
            self.count += len(rows)

        def set_total(self, *_: Any, **__: Any) -> None:
            pass

    store: Any = SimpleNamespace(rows=Rows())
    generated = ((str(index), index) for index in range(200_000))
    chunks = ingest_dataset(store, evaluation, open_dataset(generated))
    try:
        for chunk in chunks:
            # Traced only from here on, since tracing is slow.
            if chunk.last == 179_999:
                gc.collect()
                tracemalloc.start()
            del chunk
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert store.rows.count == 200_000
    # The last 20,000 rows are 10 MB; those of one chunk are in memory at a time.
    assert 500_000 < peak < 3_000_000


def test_a_slow_dataset_is_stored_before_a_chunk_is_full(
    store: Store, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_CHUNK_SECONDS", 0.0)
    assert [len(chunk.rows) for chunk in take(store, evaluation, records(3))] == [1, 1, 1]


def test_large_rows_are_stored_before_many_are_in_memory(
    store: Store, evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "_CHUNK_CHARACTERS", 1000)
    rows = [("x" * 400, number) for number in range(5)]
    assert [len(chunk.rows) for chunk in take(store, evaluation, rows)] == [3, 2]


# Ingested again.


@pytest.mark.usefixtures("chunks_of_1000")
def test_rows_that_are_stored_are_not_stored_again(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(1500))
    finish(store, evaluation, 0, 499)
    again = take(store, evaluation, records(1500))
    assert [chunk.new for chunk in again] == [False, False]
    assert pending(store, evaluation) == list(range(500, 1500))


def test_rows_that_were_stored_and_not_counted_are_not_new(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(10))
    finish(store, evaluation, 0, 9)
    # The state that a submitter leaves if it dies between storing rows and counting them.
    store.rows.set_total(evaluation.id, 5, complete=False, fingerprint=None)
    assert [chunk.new for chunk in take(store, evaluation, records(10))] == [False]
    with pytest.raises(ChangedError, match="row 7 "):
        take(store, evaluation, [*records(7), *records(10, "b")[7:]])


def test_a_dataset_with_the_same_fingerprint_is_not_read(store: Store, evaluation: Evaluation) -> None:
    dataset = Versioned(records(10), "v1")
    take(store, evaluation, dataset)
    assert take(store, evaluation, dataset) == []
    assert dataset.read == 1
    other = Versioned(records(10), "v2")
    take(store, evaluation, other)
    assert other.read == 1


@pytest.mark.usefixtures("chunks_of_1000")
def test_a_dataset_that_was_not_read_to_its_end_is_read_again(store: Store, evaluation: Evaluation) -> None:
    dataset = Versioned(records(3000), "v1")
    chunks = ingest_dataset(store, evaluation, open_dataset(dataset))
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    assert not store.rows.dataset_state(evaluation.id).complete
    assert [chunk.new for chunk in take(store, evaluation, dataset)] == [False, True, True]
    assert stored(store, evaluation) == records(3000)


def test_a_dataset_of_which_only_samples_were_read_is_read_again(store: Store, evaluation: Evaluation) -> None:
    dataset = Versioned(records(10), "v1")
    take(store, evaluation, dataset, samples=5)
    take(store, evaluation, dataset)
    assert dataset.read == 2
    assert stored(store, evaluation) == records(10)


def test_samples_then_more_samples_then_all(store: Store, evaluation: Evaluation) -> None:
    total = []
    for samples in (5, 8, 8, 3, None):
        take(store, evaluation, records(12), samples=samples)
        state = store.rows.dataset_state(evaluation.id)
        assert state.complete
        total.append(state.rows)
    assert total == [5, 8, 8, 8, 12]
    assert stored(store, evaluation) == records(12)


def test_more_samples_than_there_are_rows_are_all_rows(store: Store, evaluation: Evaluation) -> None:
    dataset = Versioned(records(5), "v1")
    take(store, evaluation, dataset, samples=100)
    assert take(store, evaluation, dataset) == []
    assert store.rows.dataset_state(evaluation.id).rows == 5


def test_samples_read_no_further(store: Store, evaluation: Evaluation) -> None:
    def rows() -> Iterator[tuple[str, int]]:
        yield from records(5)
        raise AssertionError("read too far")

    take(store, evaluation, rows, samples=5)
    assert stored(store, evaluation) == records(5)


# Changed datasets.


def test_a_changed_row_is_an_error_and_nothing_is_lost(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(1500))
    finish(store, evaluation, 0, 1499)
    changed = [*records(1200), ("other", 0), *records(1500)[1201:]]
    with pytest.raises(ChangedError, match="row 1200 ") as raised:
        take(store, evaluation, changed)
    assert "'x'" in raised.value.message
    assert "other" not in str(raised.value)
    assert "--allow-changed" in (raised.value.remedy or "")
    assert store.evaluations.counts(evaluation.id).done == 1500


def test_allowed_changes_replace_the_rows_and_drop_their_results_only(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(10))
    finish(store, evaluation, 0, 9)
    changed = records(10)
    changed[3], changed[7] = ("new 3", 3), ("new 7", 7)
    take(store, evaluation, changed, allow_changed=True)
    assert pending(store, evaluation) == [3, 7]
    assert stored(store, evaluation) == [("new 3", 3), ("new 7", 7)]


def test_a_row_that_was_inserted_at_the_front_changes_all(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(5))
    with pytest.raises(ChangedError, match="row 0 "):
        take(store, evaluation, [("first", -1), *records(5)])


def test_a_shorter_dataset_is_a_change(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(10))
    finish(store, evaluation, 0, 9)
    with pytest.raises(ChangedError, match="it has 6 rows, and had 10"):
        take(store, evaluation, records(6))
    take(store, evaluation, records(6), allow_changed=True)
    counts = store.evaluations.counts(evaluation.id)
    assert (counts.total, counts.done) == (6, 6)


def test_a_longer_dataset_is_ingested_to_its_end(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(10))
    finish(store, evaluation, 0, 9)
    take(store, evaluation, records(15))
    assert pending(store, evaluation) == list(range(10, 15))
    assert store.rows.dataset_state(evaluation.id).rows == 15


def test_fewer_samples_are_no_change(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(10))
    take(store, evaluation, records(10), samples=5)
    assert store.rows.dataset_state(evaluation.id).rows == 10


# Datasets that cannot be ingested.


class Unstorable:
    def __repr__(self) -> str:
        return "hunter2"


@pytest.mark.usefixtures("chunks_of_1000")
def test_a_value_that_cannot_be_stored_is_named_by_row_and_column(store: Store, evaluation: Evaluation) -> None:
    with pytest.raises(UnstorableValueError) as raised:
        take(store, evaluation, [*records(1200), ("text", {"deep": [Unstorable()]})])
    for part in ("row 1200", "eval_it", "expected", "Unstorable"):
        assert part in raised.value.message
    assert "hunter2" not in str(raised.value)
    assert raised.value.remedy
    # The rows before it are stored; another submission goes on from there.
    assert len(stored(store, evaluation)) == 1000
    assert not store.rows.dataset_state(evaluation.id).complete


@pytest.mark.parametrize("source", [[], lambda: iter(()), ()])
def test_an_empty_dataset_is_an_error(store: Store, evaluation: Evaluation, source: Any) -> None:
    with pytest.raises(DatasetError, match="eval_it is empty"):
        take(store, evaluation, source)


def test_a_dataset_that_became_empty_is_an_error_and_loses_nothing(store: Store, evaluation: Evaluation) -> None:
    take(store, evaluation, records(5))
    with pytest.raises(DatasetError, match="is empty"):
        take(store, evaluation, [], allow_changed=True)
    assert stored(store, evaluation) == records(5)


@pytest.mark.usefixtures("chunks_of_1000")
def test_a_generator_that_fails_says_after_how_many_rows_and_can_be_mended(
    store: Store, evaluation: Evaluation
) -> None:
    def broken() -> Iterator[tuple[str, int]]:
        yield from records(1500)
        raise LookupError("the disk is gone")

    with pytest.raises(DatasetError, match="LookupError after 1,500 rows") as raised:
        take(store, evaluation, broken)
    assert isinstance(raised.value.__cause__, LookupError)
    # Whole chunks are stored.
    assert stored(store, evaluation) == records(1000)
    assert not store.rows.dataset_state(evaluation.id).complete
    take(store, evaluation, records(2000))
    assert stored(store, evaluation) == records(2000)
    assert store.rows.dataset_state(evaluation.id).complete


def test_everything_that_needs_the_store_goes_through_retry(store: Store, evaluation: Evaluation) -> None:
    calls = []

    def twice(action: Any) -> Any:
        calls.append(1)
        action()
        return action()

    take(store, evaluation, records(1500), retry=twice)
    # The state of the dataset, the rows, and their count.
    assert len(calls) == 3
    assert stored(store, evaluation) == records(1500)


def test_other_columns_are_read_though_the_dataset_is_the_same(store: Store, evaluation: Evaluation) -> None:
    dataset = Versioned([{"text": "a", "expected": 1, "hint": "h"}], "v1")
    take(store, evaluation, dataset)
    take(store, evaluation, dataset)
    assert dataset.read == 1
    spec = EvaluationSpec("eval_it.py", "eval_it", ("text", "hint"), {"eval_it.py": "1"})
    changed = store.evaluations.begin(evaluation.experiment, spec, allow_changed=True)
    take(store, changed, dataset, allow_changed=True)
    assert [row.values for row in store.rows.pending(changed.id, 0, 9)] == [{"text": "a", "hint": "h"}]


MISSING = "the column 'expected' is missing from every row that was read, so it was None in all of them. "


@pytest.mark.parametrize(
    ("rows", "notes"),
    [
        ([{"text": "a"}, {"text": "b"}, {"text": "c", "expcted": 2}], (f"{MISSING}Did you mean 'expcted'?",)),
        ([{"text": "a", 5: 6}], (f"{MISSING}There are: text.",)),
        ([{"text": "a"}, {"text": "b", "expected": None}], ()),
        ([("a", 1), {"text": "b"}], ()),
        ([("a",), ("b",)], ()),
    ],
)
def test_a_column_that_is_missing_from_every_row_is_noted(
    store: Store, evaluation: Evaluation, rows: list[Any], notes: tuple[str, ...]
) -> None:
    take(store, evaluation, rows)
    stored_rows = store.rows.pending(evaluation.id, 0, 9)
    expected = [row.get("expected") if isinstance(row, dict) else dict(enumerate(row)).get(1) for row in rows]
    assert [row.values.get("expected") for row in stored_rows] == expected
    assert store.evaluations.by_uid(evaluation.uid).dataset_notes == notes


def test_a_note_holds_until_all_rows_are_read_again(store: Store, evaluation: Evaluation) -> None:
    def notes() -> int:
        return len(store.evaluations.by_uid(evaluation.uid).dataset_notes)

    take(store, evaluation, [{"text": "a"}, {"text": "b", "expected": 1}], samples=1)
    assert notes() == 1
    take(store, evaluation, [{"text": "a"}, {"text": "b", "expected": 1}])
    assert notes() == 0
    # Of the first row alone, the column is missing; the stored ones have it.
    take(store, evaluation, [{"text": "a"}, {"text": "b", "expected": 1}], samples=1)
    assert notes() == 0
    versioned = Versioned([{"text": "a"}], "v1")
    take(store, evaluation, versioned, allow_changed=True)
    take(store, evaluation, versioned)
    assert (notes(), versioned.read) == (1, 1)

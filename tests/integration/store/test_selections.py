"""Filters in SQL: they find what a plain Python evaluation of the same filter finds."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from doteval.analysis.groups import GroupTotals
from doteval.analysis.record_fields import record_value
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.filter_grammar import parse_field, parse_filter
from doteval.core.filters import (
    RESULT_FIELDS,
    AllOf,
    AnyOf,
    Comparator,
    FieldComparison,
    FieldKind,
    Filter,
    FilterField,
    Membership,
    Negation,
    matches,
    number_of,
    quoted,
    to_text,
)
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score
from doteval.errors import UsageError
from doteval.store import NewResult, Store, index_windows, metadata_names, selections
from doteval.store.selections import SortOrder
from tests.support.mixed_results import COLUMNS, METADATA, NAMES, SCORES, VALUES, store_mixed, value_of

fields = st.one_of(
    st.sampled_from(sorted(RESULT_FIELDS)).map(lambda name: FilterField(FieldKind.RESULT, name)),
    st.sampled_from((*NAMES, "none")).map(lambda name: FilterField(FieldKind.SCORE, name)),
    st.sampled_from((*COLUMNS, "none")).map(lambda name: FilterField(FieldKind.ROW, name)),
    st.sampled_from((*METADATA, "none")).map(lambda name: FilterField(FieldKind.METADATA, name)),
)
texts = st.sampled_from(
    [*(value for value in (*VALUES, *SCORES) if isinstance(value, str)), "e", "ä", "SORRY", "done", "h:1", "000"]
) | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=3)
numbers = st.sampled_from([0.0, 1.0, 0.5, -2.5, 2.0, 4.0, 12345678901234567890.0]) | st.floats(-10, 10)
scalars = st.one_of(st.none(), st.booleans(), numbers, texts)
comparisons = st.one_of(
    st.builds(FieldComparison, fields, st.sampled_from([Comparator.EQUAL, Comparator.UNEQUAL]), scalars),
    st.builds(
        FieldComparison,
        fields,
        st.sampled_from([Comparator.LESS, Comparator.AT_MOST, Comparator.MORE, Comparator.AT_LEAST]),
        st.booleans() | numbers | texts,
    ),
    st.builds(FieldComparison, fields, st.just(Comparator.CONTAINS), texts),
    st.builds(Membership, fields, st.lists(scalars, min_size=1, max_size=3).map(tuple)),
)
some = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(tuple).map(AllOf),
        st.lists(inner, min_size=2, max_size=3).map(tuple).map(AnyOf),
        inner.map(Negation),
    ),
    max_leaves=5,
)


@pytest.fixture
def mixed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """An evaluation with results of all kinds, in several windows and pages."""
    monkeypatch.setattr(index_windows, "_FIRST_WINDOW", 3)
    monkeypatch.setattr(index_windows, "_LARGEST_WINDOW", 20)
    monkeypatch.setattr(selections, "_PAGE", 7)
    return store_mixed(store)


@pytest.fixture
def records(store: Store, mixed: Evaluation) -> list[Record]:
    """All results of that evaluation."""
    return list(store.results.records(mixed.id))


# One store serves all examples of a test, which only read it.
only_reads = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@only_reads
@given(wanted=some)
# PostgreSQL compares no text with a value of another type.
@example(wanted=FieldComparison(FilterField(FieldKind.RESULT, "status"), Comparator.EQUAL, True))
@example(wanted=FieldComparison(FilterField(FieldKind.RESULT, "status"), Comparator.EQUAL, 1.0))
def test_a_filter_finds_what_python_finds(
    store: Store, mixed: Evaluation, records: list[Record], wanted: Filter
) -> None:
    expected = [record for record in records if matches(wanted, value_of(record))]
    found = list(store.selections.records(mixed.id, wanted))
    assert found == expected
    assert store.selections.count(mixed.id, wanted) == len(expected)
    assert list(store.selections.records(mixed.id, wanted, limit=3)) == expected[:3]


@only_reads
@given(wanted=some)
def test_a_filter_is_read_as_it_was_written(wanted: Filter) -> None:
    text = to_text(wanted)
    try:
        read = parse_filter(text)
    except UsageError as error:
        # Only a value that a field never has is refused.
        assert "is never" in str(error)  # noqa: PT017
        return
    assert to_text(read) == text


@only_reads
@given(field=fields, descending=st.booleans(), limit=st.none() | st.integers(1, 30))
def test_results_are_sorted_numbers_first_and_nothing_last(
    store: Store, mixed: Evaluation, records: list[Record], field: FilterField, descending: bool, limit: int | None
) -> None:
    def rank(value: Any) -> list[tuple[bool, Any]]:
        number, text = number_of(value), value if isinstance(value, str) else None
        signed = None if number is None else (-number if descending else number)
        letters = None if text is None else [(-ord(each) if descending else ord(each)) for each in text]
        if letters is not None and descending:
            # A text that continues another comes before it.
            letters.append(1)
        return [(each is None, 0 if each is None else each) for each in (signed, letters)]

    expected = sorted(records, key=lambda record: rank(value_of(record)(field)))[:limit]
    found = list(store.selections.records(mixed.id, sort=SortOrder(field, descending), limit=limit))
    assert [(each.row.index, each.row.sample) for each in found] == [
        (each.row.index, each.row.sample) for each in expected
    ]


def test_scores_are_compared_as_metrics_take_them(store: Store) -> None:
    values = [numpy.float64(0.75), numpy.bool_(True), ("a", "a"), ("a", "b"), True, "1", None]
    evaluation = store.evaluations.begin(store.experiments.begin("x"), EvaluationSpec("a.py", "e", ("n",)))
    rows = [Row(index, f"k{index}", {"n": index}) for index in range(len(values))]
    store.rows.add(evaluation.id, rows)
    outcomes = [Outcome(RowStatus.DONE, 0.0, 0.0, (Score("s", value),)) for value in values]
    store.results.write([NewResult(evaluation.id, *each) for each in zip(rows, outcomes, strict=True)], None)

    def found(text: str) -> list[int]:
        return [record.row.index for record in store.selections.records(evaluation.id, parse_filter(text))]

    assert found("score.s = 1") == found("score.s = true") == [1, 2, 4]
    assert found("score.s >= 0.5 and score.s < 1") == [0]
    assert found("score.s = 0") == [3]
    assert found("score.s = '1'") == [5]
    assert found("score.s = null") == [6]


def test_retries_count_as_attempts(store: Store) -> None:
    evaluation = store.evaluations.begin(store.experiments.begin("x"), EvaluationSpec("a.py", "e", ("n",)))
    rows = [Row(index, f"k{index}", {"n": index}) for index in range(2)]
    store.rows.add(evaluation.id, rows)
    failure = Outcome(RowStatus.FAILED, 0.0, 0.0, error=RowError("E", "m", ErrorClass.TIMEOUT))
    done = Outcome(RowStatus.DONE, 0.0, 0.0)
    for outcome in (failure, done):
        store.results.write([NewResult(evaluation.id, row, outcome) for row in rows[:1]], None)
        store.rows.retry_failed(evaluation.id)
    store.results.write([NewResult(evaluation.id, rows[1], done)], None)
    assert [each.row.index for each in store.selections.records(evaluation.id, parse_filter("attempts > 1"))] == [0]


def test_values_with_nul_harm_nobody(store: Store) -> None:
    evaluation = store.evaluations.begin(store.experiments.begin("x"), EvaluationSpec("a.py", "e", ("n", "t")))
    rows = [Row(index, f"k{index}", {"n": index, "t": "before\0after"}) for index in range(3)]
    store.rows.add(evaluation.id, rows)
    done = Outcome(RowStatus.DONE, 0.0, 0.0, model_response="a\0b")
    store.results.write([NewResult(evaluation.id, row, done) for row in rows], None)
    for text in ("row.n = 1", "row.n = 1 and row.t ~ 'before'", "row.n = 1 and response ~ 'a'"):
        assert [each.row.index for each in store.selections.records(evaluation.id, parse_filter(text))] == [1]


def test_names_keys_and_groups(store: Store, mixed: Evaluation) -> None:
    assert sorted(store.selections.score_names(mixed.id)) == sorted(NAMES)
    assert store.selections.index_of_key(mixed.id, "0007") == 7
    assert store.selections.index_of_key(mixed.id, "7") is None
    field = parse_field("row.category")
    where = parse_filter("status = 'done'")
    totals = GroupTotals()
    store.selections.add_groups(totals, mixed.id, field, where)
    records = [record for record in store.results.records(mixed.id) if record.outcome.status is RowStatus.DONE]

    def group(record: Record) -> float | str | None:
        value = record.row.values.get("category")
        return value if isinstance(value, str) else number_of(value)

    found = {each.group: each for each in totals.summaries()}
    assert {name: each.results for name, each in found.items()} == Counter(map(group, records))
    for name, summary in found.items():
        by_row: dict[int, list[float]] = defaultdict(list)
        for record in records:
            for score in record.outcome.scores:
                number = number_of(score.value)
                if group(record) == name and score.name == "exact_match" and number is not None:
                    by_row[record.row.index].append(number)
        means = [sum(each) / len(each) for each in by_row.values()]
        shown = summary.scores.get("exact_match")
        assert (shown is None) == (not means)
        if shown is not None:
            assert (shown.n, shown.mean) == (len(means), pytest.approx(sum(means) / len(means)))


def test_windows_cover_all_rows_once(store: Store, mixed: Evaluation) -> None:
    windows = list(index_windows.index_windows(store._database, mixed.id))
    assert windows[0][0] == 1
    assert windows[-1][1] > 39
    assert all(before[1] == after[0] for before, after in itertools.pairwise(windows))


def test_records_have_every_field(store: Store, mixed: Evaluation) -> None:
    every = [FilterField(FieldKind.RESULT, name) for name in RESULT_FIELDS]
    every += [FilterField(FieldKind.ROW, name) for name in COLUMNS] + [FilterField(FieldKind.SCORE, n) for n in NAMES]
    every += [FilterField(FieldKind.METADATA, name) for name in METADATA]
    for record in store.results.records(mixed.id):
        value = value_of(record, attempts=3)
        assert [record_value(record, field, attempts=3) for field in every] == [value(field) for field in every]


def test_names_of_metadata_are_known_and_others_refused(store: Store, mixed: Evaluation, records: list[Record]) -> None:
    assert store.selections.metadata_names(mixed.id) == sorted(METADATA)
    where = store.selections.filter([mixed], f"metadata.tool = 'geo' or metadata.{quoted(METADATA[1])} = 'geo'")
    found = list(store.selections.records(mixed.id, where))
    assert found
    assert found == [record for record in records if "geo" in record.outcome.metadata.values()]
    with pytest.raises(UsageError, match="no result has metadata 'tol'") as caught:
        store.selections.filter([mixed], "metadata.tol = 'geo'")
    assert "Did you mean metadata.tool?" in str(caught.value.remedy)
    # A filter that names none does not look for them.
    assert store.selections.names([mixed], ["score.label = 'geo'"]).metadata is None


def test_metadata_of_a_late_row_is_found(store: Store, monkeypatch: pytest.MonkeyPatch, mixed: Evaluation) -> None:
    """Names are looked for in the first rows, and a name that a filter has in all."""
    late = Row(500, "late", {})
    store.rows.add(mixed.id, [late])
    outcome = Outcome(RowStatus.DONE, 1e9, 0.0, (), metadata={"rare": 1, "nothing": None})
    store.results.write([NewResult(mixed.id, late, outcome)], None)
    monkeypatch.setattr(metadata_names, "_ROWS", 10)
    assert "rare" not in store.selections.metadata_names(mixed.id)
    where = store.selections.filter([mixed], "metadata.rare = 1")
    assert [record.row.index for record in store.selections.records(mixed.id, where)] == [500]

"""Filters in SQL: they find what a plain Python evaluation of the same filter finds."""

from __future__ import annotations

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
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
    to_text,
)
from doteval.core.results import ErrorClass, Outcome, Record, Row, RowError, RowStatus, Score, Usage
from doteval.errors import UsageError
from doteval.store import NewResult, Store, WorkerInfo, index_windows, selections
from doteval.store.selections import SortOrder

COLUMNS = ("category", "odd \"key\\ é'", "n")
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -2.5,
        1e-7,
        12345678901234567890,
        "",
        "geo",
        "GEO",
        "Äpfel",
        "äPFEL und ß",
        "10",
        "true",
    ),
    *(
        'it\'s "quoted" \\ %_\n',
        "日本",
        "🙂 smile",
        "K\u212a",
        [1, "geo"],
        {"role": "user", "content": "Sorry Äpfel"},
        [],
    ),
]
NAMES = ("exact_match", "f 1", "label")
SCORES: list[Any] = [True, False, 0.5, 1, -3, "geo", "Geo", 'a"b\\c\n', None]


def made(random_: random.Random, index: int, sample: int) -> tuple[Row, Outcome]:
    values = {column: random_.choice(VALUES) for column in COLUMNS if random_.random() < 0.9}
    status = random_.choice(list(RowStatus)[1:])
    error = None
    if status is not RowStatus.DONE:
        error = RowError(random_.choice(["ValueError", "Skipped"]), random_.choice(["geo", "No Äpfel", ""]))
    usage = tuple(
        Usage(f"m{each}", prompt_tokens=random_.randrange(3), completion_tokens=2, cost=random_.choice([None, 0.5]))
        for each in range(random_.randrange(3))
    )
    scores = tuple(Score(name, random_.choice(SCORES)) for name in NAMES if random_.random() < 0.8)
    outcome = Outcome(
        status,
        1e9,
        random_.choice([0.0, 0.25, 1.0]),
        scores if status is RowStatus.DONE else (),
        prompt=random_.choice(VALUES),
        model_response=random_.choice(VALUES),
        error=error,
        usage=usage,
    )
    return Row(index, f"{index:04x}key", values, sample), outcome


def value_of(record: Record, attempts: int = 1) -> Callable[[FilterField], Any]:
    outcome = record.outcome
    costs = [each.cost for each in outcome.usage if each.cost is not None]
    facts = {
        "index": record.row.index,
        "key": record.row.key,
        "sample": record.row.sample,
        "status": outcome.status.value,
        "error": outcome.error and outcome.error.message,
        "error_type": outcome.error and outcome.error.type,
        "error_class": outcome.error and outcome.error.error_class.value,
        "prompt": outcome.prompt,
        "response": outcome.model_response,
        "tokens": sum(each.prompt_tokens + each.completion_tokens for each in outcome.usage),
        "prompt_tokens": sum(each.prompt_tokens for each in outcome.usage),
        "completion_tokens": sum(each.completion_tokens for each in outcome.usage),
        "cost": sum(costs) if costs else None,
        "seconds": outcome.seconds,
        "attempts": attempts,
        "worker": record.worker,
    }

    def value(field: FilterField) -> Any:
        if field.kind is FieldKind.ROW:
            return record.row.values.get(field.name)
        if field.kind is FieldKind.SCORE:
            return next((each.value for each in outcome.scores if each.name == field.name), None)
        return facts[field.name]

    return value


fields = st.one_of(
    st.sampled_from(sorted(RESULT_FIELDS)).map(lambda name: FilterField(FieldKind.RESULT, name)),
    st.sampled_from((*NAMES, "none")).map(lambda name: FilterField(FieldKind.SCORE, name)),
    st.sampled_from((*COLUMNS, "none")).map(lambda name: FilterField(FieldKind.ROW, name)),
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
    random_ = random.Random(27)
    spec = EvaluationSpec("a.py", "eval_a", COLUMNS)
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec, epochs=2)
    everything = [made(random_, index, sample) for index in range(40) for sample in range(2) if index % 13]
    store.rows.add(evaluation.id, list({row.index: row for row, _ in everything}.values()))
    worker = store.workers.begin(WorkerInfo("w", "h", 1, ()))
    keys = {row.index: row for row, _ in everything}
    new = [
        NewResult(evaluation.id, Row(row.index, keys[row.index].key, {}, row.sample), outcome)
        for row, outcome in everything
    ]
    store.results.write(new[:50], worker)
    store.results.write(new[50:], None)
    return evaluation


# One store serves all examples of a test, which only read it.
only_reads = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@only_reads
@given(wanted=some)
def test_a_filter_finds_what_python_finds(store: Store, mixed: Evaluation, wanted: Filter) -> None:
    records = list(store.results.records(mixed.id))
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
    store: Store, mixed: Evaluation, field: FilterField, descending: bool, limit: int | None
) -> None:
    def rank(value: Any) -> list[tuple[bool, Any]]:
        number, text = number_of(value), value if isinstance(value, str) else None
        signed = None if number is None else (-number if descending else number)
        letters = None if text is None else [(-ord(each) if descending else ord(each)) for each in text]
        if letters is not None and descending:
            # A text that continues another comes before it.
            letters.append(1)
        return [(each is None, 0 if each is None else each) for each in (signed, letters)]

    records = list(store.results.records(mixed.id))
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
    for record in store.results.records(mixed.id):
        value = value_of(record, attempts=3)
        assert [record_value(record, field, attempts=3) for field in every] == [value(field) for field in every]

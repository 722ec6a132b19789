"""Pages of rows: together they are what a filter and a text match, however little time each page has."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from doteval.core.experiments import Evaluation
from doteval.core.filter_grammar import parse_filter
from doteval.core.filters import FieldKind, FilterField, contains
from doteval.core.json_codec import encode
from doteval.core.results import Record
from doteval.store import Store, row_pages
from doteval.store.row_pages import RowKey, RowsWanted
from doteval.store.selections import SortOrder
from tests.support.mixed_results import COLUMNS, store_mixed

FILTERS = (None, "score.exact_match = 0", "status = 'failed'", "not (row.category = 'geo')", "response ~ 'SMILE'")
LONG = 3600.0

# One store serves all examples of a test, which only read it.
only_reads = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def mixed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """An evaluation with results of all kinds, in several windows."""
    monkeypatch.setattr(row_pages, "_FIRST_WINDOW", 3)
    monkeypatch.setattr(row_pages, "_LARGEST_WINDOW", 20)
    return store_mixed(store)


@pytest.fixture
def records(store: Store, mixed: Evaluation) -> list[Record]:
    """All results of that evaluation."""
    return list(store.results.records(mixed.id))


def wanted_rows(evaluation: Evaluation, where: str | None = None, text: str | None = None) -> RowsWanted:
    return RowsWanted(evaluation.id, None if where is None else parse_filter(where), text, COLUMNS)


def all_pages(store: Store, wanted: RowsWanted, size: int, seconds: float, *, backwards: bool) -> list[RowKey]:
    """The rows of all pages, one after the other, in order."""
    look = store.row_pages.before if backwards else store.row_pages.after
    found: list[RowKey] = []
    looked_at, key = 0, None
    while True:
        page = look(wanted, key, size, seconds)
        assert len(page.keys) <= size
        assert looked_at <= page.looked_at <= page.rows == 38
        found = [*page.keys, *found] if backwards else [*found, *page.keys]
        looked_at, key = page.looked_at, page.reached
        if key is None:
            assert page.looked_at == page.rows
            return found


@only_reads
@given(
    where=st.sampled_from(FILTERS),
    size=st.integers(1, 12),
    seconds=st.sampled_from([0.0, LONG]),
    backwards=st.booleans(),
)
def test_pages_cover_what_a_filter_finds(
    store: Store, mixed: Evaluation, where: str | None, size: int, seconds: float, backwards: bool
) -> None:
    wanted = wanted_rows(mixed, where)
    records = store.selections.records(mixed.id, wanted.where)
    assert all_pages(store, wanted, size, seconds, backwards=backwards) == [
        (each.row.index, each.row.sample) for each in records
    ]


def is_held(record: Record, text: str) -> bool:
    """Whether a record holds a text, by the JSON of each value on its own."""
    values = [*record.row.values.values(), record.outcome.prompt, record.outcome.model_response]
    return any(contains(encode(each), encode(text)[1:-1]) for each in values if each is not None)


texts = st.sampled_from(
    ["geo", "ÄPFEL", "smile", "日本", "%", "_", 'it\'s "quoted" \\', "10", "sorry äpfel", "nowhere"]
)


@only_reads
@given(text=texts | st.sampled_from(["categ", "odd", "KEY\\"]), backwards=st.booleans())
def test_a_text_is_found_in_prompts_responses_and_rows_and_not_in_the_names_of_columns(
    store: Store, mixed: Evaluation, records: list[Record], text: str, backwards: bool
) -> None:
    expected = [(each.row.index, each.row.sample) for each in records if is_held(each, text)]
    assert all_pages(store, wanted_rows(mixed, None, text), 5, LONG, backwards=backwards) == expected


def test_a_text_and_a_filter_are_both_matched(store: Store, mixed: Evaluation) -> None:
    both = all_pages(store, wanted_rows(mixed, "status = 'done'", "geo"), 5, LONG, backwards=False)
    done = all_pages(store, wanted_rows(mixed, "status = 'done'"), 5, LONG, backwards=False)
    held = all_pages(store, wanted_rows(mixed, None, "geo"), 5, LONG, backwards=False)
    assert both == sorted({*done} & {*held})
    assert both not in (done, held)


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (FieldKind.SCORE, "exact_match"),
        (FieldKind.SCORE, "label"),
        (FieldKind.ROW, "category"),
        (FieldKind.RESULT, "key"),
        (FieldKind.RESULT, "seconds"),
    ],
)
@pytest.mark.parametrize("descending", [True, False])
def test_sorted_rows_are_those_of_selections(
    store: Store, mixed: Evaluation, kind: FieldKind, field: str, descending: bool
) -> None:
    order = SortOrder(FilterField(kind, field), descending)
    for limit in (3, 70):
        for wanted in (wanted_rows(mixed), wanted_rows(mixed, "status = 'done'")):
            records = store.selections.records(mixed.id, wanted.where, sort=order, limit=limit)
            expected = tuple((each.row.index, each.row.sample) for each in records)
            assert store.row_pages.sorted_part(wanted, order, limit) == expected
            parts = [store.row_pages.sorted_part(wanted, order, 7, skip=skip) for skip in range(0, limit, 7)]
            assert tuple(key for part in parts for key in part)[:limit] == expected


@pytest.mark.parametrize("where", [None, "status = 'done'"])
@pytest.mark.parametrize("text", [None, "geo"])
def test_given_rows_are_chosen_and_sorted_like_all(
    store: Store, mixed: Evaluation, where: str | None, text: str | None
) -> None:
    wanted = wanted_rows(mixed, where, text)
    everything = all_pages(store, wanted_rows(mixed), 5, LONG, backwards=False)
    # Every other one, in an order that is not that of the dataset, and one that has no result.
    given = [*reversed(everything[::2]), (10**9, 0)]
    chosen = set(all_pages(store, wanted, 5, LONG, backwards=False))
    if where is not None or text is not None:
        assert store.row_pages.among(given, wanted, None) == tuple(key for key in given if key in chosen)
    order = SortOrder(FilterField(FieldKind.ROW, "category"), descending=True)
    in_order = store.row_pages.sorted_part(wanted, order, 1_000)
    assert len(in_order) > 3
    assert store.row_pages.among(given, wanted, order) == tuple(key for key in in_order if key in set(given))


def test_an_evaluation_without_results_has_an_empty_page(store: Store, mixed: Evaluation) -> None:
    page = store.row_pages.after(RowsWanted(mixed.id + 1), None, 5, LONG)
    assert (page.keys, page.reached, page.looked_at, page.rows) == ((), None, 0, 0)

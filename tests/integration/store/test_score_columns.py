"""Columns of scores are the same whether the database aggregates them or they are read row by row."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from doteval.analysis.summary import ScoreColumn
from doteval.core.experiments import Evaluation
from doteval.core.results import Outcome, Score
from doteval.errors import StoreError
from doteval.store import NewResult, Store
from doteval.store import score_columns as module
from doteval.store.score_columns import read_score_columns
from tests.support.store_workload import begin, done, failed, rows, sample

ALIKE = [[Score("a", index / 2, ("mean",)), Score("b\x00", index % 2 == 0, ("accuracy",))] for index in range(7)]
SOME_HAVE_MORE = [[Score("a", 1, ("mean",)), *([Score("b", 2, ())] if index in (2, 5) else [])] for index in range(7)]
OTHER_NAMES = [[Score("b" if index == 4 else "a", index, ("mean",))] for index in range(7)]
OTHER_METRICS = [[Score("a", index, ("mean", "max") if index == 6 else ("mean",))] for index in range(7)]
ONE_NAME_TWICE = [[Score("a", index, ("mean",)), Score("a", -index, ("mean",))] for index in range(7)]
OF_ALL_KINDS = [
    [Score("a", value)] for value in (None, "a,b", '"]', [1, {"k": (1, 2)}], date(2026, 1, 1), float("inf"), "日本\x00")
]
NONE: list[list[Score]] = [[], [], []]


def write(store: Store, given: list[list[Score]], *, epochs: int = 1) -> Evaluation:
    evaluation = begin(store, len(given), epochs=epochs)
    new = [
        NewResult(evaluation.id, sample(row, number), replace(done(), scores=tuple(scores)))
        for row, scores in zip(rows(len(given)), given, strict=True)
        for number in range(epochs)
    ]
    store.results.write(new, None)
    return evaluation


def columns(store: Store, evaluation: Evaluation, *, aggregate: bool = True) -> list[ScoreColumn]:
    with store._database.read() as connection:
        return read_score_columns(connection, evaluation.id, aggregate=aggregate)


def values_by_name(given: list[list[Score]]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    for scores in given:
        for score in scores:
            values.setdefault(score.name, []).append(score.value)
    return values


@pytest.mark.parametrize("page", [3, 5000])
@pytest.mark.parametrize(
    "given", [ALIKE, SOME_HAVE_MORE, OTHER_NAMES, OTHER_METRICS, ONE_NAME_TWICE, OF_ALL_KINDS, NONE]
)
def test_values_are_in_the_order_of_rows_however_they_are_read(
    store: Store, given: list[list[Score]], page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    evaluation = write(store, given)
    found = columns(store, evaluation)
    assert {column.name: column.values for column in found} == values_by_name(given)
    assert list(values_by_name(given)) == [column.name for column in found]
    assert found == columns(store, evaluation, aggregate=False)


@pytest.mark.parametrize("aggregate", [True, False])
@pytest.mark.parametrize("page", [3, 5000])
def test_scores_that_are_not_finite_come_with_their_rows(
    store: Store, aggregate: bool, page: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", page)
    nan, inf = float("nan"), float("inf")
    values = [0.5, nan, 1, True, -inf, 2.5, (nan, "a")]
    evaluation = write(
        store, [[Score("other", 1), *([] if row == 2 else [Score("a", values[row])])] for row in range(7)]
    )
    other, a = columns(store, evaluation, aggregate=aggregate)
    assert (other.not_finite_rows, a.not_finite_rows) == ((), (1, 4, 6))


@pytest.mark.parametrize("aggregate", [True, False])
def test_values_of_several_samples_say_their_rows(
    store: Store, aggregate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAGE", 6)
    evaluation = write(store, ALIKE[:5], epochs=2)
    late = rows(6)[5]
    store.rows.add(evaluation.id, [late])
    store.results.write([NewResult(evaluation.id, sample(late, 1), failed())], None)
    numbers, flags = columns(store, evaluation, aggregate=aggregate)
    assert numbers.rows == flags.rows == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert numbers.values == [0, 0, 0.5, 0.5, 1, 1, 1.5, 1.5, 2, 2]
    assert numbers.failed_rows == (5,)


@pytest.mark.parametrize("aggregate", [True, False])
def test_scores_of_rows_that_are_not_done_are_left_out(store: Store, aggregate: bool) -> None:
    evaluation = write(store, ALIKE[:3])
    late = rows(4)[3]
    store.rows.add(evaluation.id, [late])
    outcome: Outcome = replace(failed(), scores=(Score("a", 9, ("mean",)),))
    store.results.write([NewResult(evaluation.id, late, outcome)], None)
    assert columns(store, evaluation, aggregate=aggregate)[0].values == [0, 0.5, 1]


def test_values_too_long_to_aggregate_are_read_row_by_row(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = write(sqlite_store, ALIKE)
    expected = sqlite_store.results.score_columns(evaluation.id)
    with sqlite_store._database.read() as connection:
        driver = connection.connection.dbapi_connection
        # A small limit in place of a gigabyte: the values of a page exceed it, and none of them does.
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20)  # type: ignore[union-attr]
    try:
        with pytest.raises(StoreError):
            columns(sqlite_store, evaluation)
        assert sqlite_store.results.score_columns(evaluation.id) == expected
    finally:
        driver.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000_000)  # type: ignore[union-attr]

"""Means by group: windows whose scores the database joins give what reading them line by line gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from doteval.analysis.groups import GroupSummary, GroupTotals
from doteval.core.experiments import Evaluation, EvaluationSpec
from doteval.core.filter_grammar import parse_field, parse_filter
from doteval.core.filters import FieldKind, FilterField
from doteval.core.results import Outcome, Row, Score
from doteval.errors import UsageError
from doteval.store import NewResult, Store, group_reading, index_windows
from tests.support.store_workload import done, failed, skipped

CATEGORIES: list[Any] = ["geo", 'a "quoted" ü', 1, 1.0, True, None, [1], "geo"]


@pytest.fixture
def graded(store: Store, monkeypatch: pytest.MonkeyPatch) -> Evaluation:
    """Forty rows with two samples each; some failed, were skipped or are pending, and one failed row has scores."""
    monkeypatch.setattr(index_windows, "_FIRST_WINDOW", 3)
    monkeypatch.setattr(index_windows, "_LARGEST_WINDOW", 8)
    columns = ("category", 'a"b')
    spec = EvaluationSpec("evals/eval_qa.py", "eval_qa", columns)
    evaluation = store.evaluations.begin(store.experiments.begin("x"), spec, epochs=2)
    rows = [Row(index, f"k{index}", dict.fromkeys(columns, CATEGORIES[index % 8])) for index in range(40)]
    store.rows.add(evaluation.id, rows)
    for row in rows:
        for sample in (0, 1):
            scores = (Score("right", row.index % 3 > sample, ("accuracy",)), Score("f1", row.index / 7, ("mean",)))
            outcome: Outcome = replace(done(), scores=scores)
            if row.index in (5, 11) and sample:
                outcome = replace(failed(), scores=scores)
            if row.index == 20:
                outcome = skipped()
            if row.index != 30:
                store.results.write([NewResult(evaluation.id, replace(row, sample=sample), outcome)], None)
    return evaluation


def groups(store: Store, evaluation: Evaluation, field: str, where: str | None = None) -> list[GroupSummary]:
    totals = GroupTotals()
    matching = None if where is None else parse_filter(where)
    # The grammar has no such name, but datasets may.
    by = FilterField(FieldKind.ROW, 'a"b') if '"' in field else parse_field(field)
    store.selections.add_groups(totals, evaluation.id, by, matching)
    return sorted(totals.summaries(), key=lambda each: str(each.group))


@pytest.mark.parametrize("field", ["row.category", 'row.a"b', "status", "score.right", "row.none"])
def test_both_ways_give_the_same(store: Store, graded: Evaluation, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bool] = []
    aligned = group_reading._aligned

    def noted(*given: Any) -> Any:
        found = aligned(*given)
        read.append(found is not None)
        return found

    monkeypatch.setattr(group_reading, "_aligned", noted)
    joined = groups(store, graded, field)
    assert read
    assert all(read)
    # Every row matches, and with a filter the lines are read.
    assert groups(store, graded, field, "index >= 0") == joined
    assert sum(each.results for each in joined) == 78
    if field == "row.category":
        by_group = {each.group: each for each in joined}
        assert set(by_group) == {1.0, None, 'a "quoted" ü', "geo"}
        # The failed sample of row 5 counts as false, and not also by its score.
        assert by_group[None].failed == 1
        assert by_group[None].scores["right"].n == 9


def test_windows_that_lack_a_score_are_read_line_by_line(store: Store, graded: Evaluation) -> None:
    row = Row(30, "k30", {"category": "geo"})
    only = [Score("right", float("nan")), Score("right", (1, 1)), Score("other", 1.0)]
    outcomes = [replace(done(), scores=tuple(only[:1])), replace(done(), scores=tuple(only[1:]))]
    store.results.write(
        [NewResult(graded.id, replace(row, sample=sample), outcomes[sample]) for sample in (0, 1)], None
    )
    found = groups(store, graded, "row.category")
    assert found == groups(store, graded, "row.category", "index >= 0")
    assert {name for each in found for name in each.scores} == {"right", "f1", "other"}


def test_too_many_groups_are_refused(store: Store, graded: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_reading, "MOST_GROUPS", 20)
    with pytest.raises(UsageError, match=r"key has more than 20 values"):
        groups(store, graded, "key")

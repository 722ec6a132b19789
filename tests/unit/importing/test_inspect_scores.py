"""The scores of inspect-ai in doteval's form."""

from __future__ import annotations

from typing import Any

import pytest

from doteval.importing.inspect_scores import ScorerMetrics, figures_of, scores_of
from doteval.importing.logs import LogFigure, Remarks


def converted(value: Any, *metrics: str) -> list[tuple[str, Any, tuple[str, ...]]]:
    known = ScorerMetrics({"s": metrics} if metrics else {})
    return [
        (score.name, score.value, score.metric_names) for score in scores_of({"s": {"value": value}}, known, Remarks())
    ]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        ("C", True),
        ("I", False),
        ("P", 0.5),
        ("N", False),
        ("yes", True),
        ("No", False),
        ("0.25", 0.25),
        (True, True),
        (3, 3),
    ],
)
def test_values_that_metrics_take_for_numbers(value: Any, number: Any) -> None:
    assert converted(value, "accuracy", "stderr") == [("s", number, ("accuracy",))]


def test_labels_of_a_metric_of_ones_own_stay_labels() -> None:
    assert converted("C", "my_agreement") == [("s", "C", ())]
    assert converted("elephant", "accuracy") == [("s", "elephant", ())]
    # A number has a mean all the same.
    assert converted(2.5, "my_agreement") == [("s", 2.5, ("mean",))]


def test_without_known_metrics() -> None:
    assert converted("P") == [("s", 0.5, ("accuracy",))]
    assert converted(2) == [("s", 2, ("mean",))]


def test_mappings_and_lists_become_scores() -> None:
    assert converted({"a": 1, "b": "C"}, "mean") == [("s_a", 1, ("mean",)), ("s_b", True, ("mean",))]
    assert converted([1, None], "mean") == [("s_0", 1, ("mean",))]


def test_two_scores_of_one_name_stay_two() -> None:
    scored = {"s": {"value": {"a": 1}}, "s_a": {"value": 2}}
    assert [score.name for score in scores_of(scored, ScorerMetrics(), Remarks())] == ["s_a", "s_a_"]


def test_what_has_no_value_is_counted() -> None:
    remarks = Remarks()
    assert list(scores_of({"s": {"value": float("nan")}, "t": {}}, ScorerMetrics(), remarks)) == []
    assert remarks.counts == {"samples without a value of s": 1, "scores of t without a value": 1}


def test_metrics_of_each_value_and_of_logs_that_name_no_scorers() -> None:
    scorers = [
        {"name": "one", "metrics": [{"name": "inspect_ai/mean"}, {"*": [{"name": "inspect_ai/std"}]}]},
        {"name": "two", "metrics": {"a": [{"name": "mine/own"}]}},
    ]
    metrics = ScorerMetrics.of_header({"eval": {"scorers": scorers}})
    assert metrics.of("one", "any") == ["std"]
    assert metrics.of("one", None) == ["mean"]
    assert metrics.of("two", "a") == ["own"]
    assert metrics.of("two", "b") is None
    results = {"scores": [{"name": "a", "scorer": "two", "metrics": {"mean": {"value": 1}}}]}
    assert ScorerMetrics.of_header({"results": results}).of("two", "a") == ["mean"]


def test_figures_of_the_first_reducer_without_standard_errors() -> None:
    measured = {"mean": {"value": 1}, "stderr": {"value": 2}, "odd": {"value": None}}
    scores = [
        {"name": "a", "scorer": "s", "reducer": reducer, "metrics": measured} for reducer in ("mode", "pass_at_2")
    ]
    assert figures_of({"results": {"scores": scores}}, "mode") == [LogFigure("s_a", "mean", 1.0)]

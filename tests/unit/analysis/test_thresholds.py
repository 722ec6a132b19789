"""Thresholds: which evaluations they apply to, and the messages when they are missed."""

from __future__ import annotations

import pytest

from doteval.analysis.summary import ScoreColumn, Summary, summarize
from doteval.analysis.thresholds import Threshold, check_threshold
from doteval.core.experiments import Counts
from doteval.errors import UsageError


def summary(*values: object, failed: int = 0, metrics: tuple[str, ...] = ("accuracy", "mean")) -> Summary:
    columns = [ScoreColumn("exact_match", metrics, list(values))] if values else []
    return summarize(columns, Counts(len(values) + failed, len(values), failed))


def failure(text: str, evaluation: str = "eval_x", *values: object, failed: int = 0) -> str | None:
    check = check_threshold(Threshold.parse(text), evaluation, summary(*values, failed=failed))
    assert check.applies
    return check.failure


def test_a_value_under_the_threshold_fails() -> None:
    assert failure("exact_match.accuracy=0.5", "eval_x", True, False) is None
    assert failure("exact_match.accuracy=0.75", "eval_x", True, False) == (
        "exact_match.accuracy is 0.500, under 0.75 (n 2, 95% interval 0.095 – 0.905)"
    )
    # Failed rows count as False.
    assert "is 0.25" in str(failure("exact_match.accuracy=0.5", "eval_x", True, False, failed=2))


@pytest.mark.parametrize("name", ["EvalA::eval_b[gpt-large]", "EvalA::eval_b", "eval_b[gpt-large]", "eval_b"])
def test_an_evaluation_may_be_given_by_a_short_name(name: str) -> None:
    threshold = Threshold.parse(f"{name}:exact_match.accuracy=1")
    assert check_threshold(threshold, "EvalA::eval_b[gpt-large]", summary(True)).applies
    assert not check_threshold(threshold, "EvalA::eval_c[gpt-large]", summary(True)).applies
    assert check_threshold(threshold, "EvalA::eval_b[gpt-large]", summary(False)).failure is not None


def test_a_threshold_for_another_score_does_not_apply_and_one_for_another_metric_fails() -> None:
    assert not check_threshold(Threshold.parse("judge.accuracy=1"), "eval_x", summary(True)).applies
    assert failure("exact_match.f1=1", "eval_x", True) == (
        "there is no exact_match.f1 (--fail-under exact_match.f1=1): there is exact_match.accuracy, exact_match.mean"
    )
    assert "there is no judge.accuracy" in str(failure("eval_x:judge.accuracy=1", "eval_x", True))


def test_a_threshold_is_missed_if_no_row_is_done() -> None:
    assert "no row is done" in str(failure("judge.accuracy=0", "eval_x", failed=3))
    assert "no row is done" in str(failure("eval_x:judge.accuracy=0", "eval_x", failed=3))
    assert not check_threshold(Threshold.parse("eval_y:judge.accuracy=0"), "eval_x", summary(failed=3)).applies


def test_a_metric_without_a_value_misses_its_threshold() -> None:
    broken = summary("label", metrics=("mean",))
    check = check_threshold(Threshold.parse("exact_match.mean=0"), "eval_x", broken)
    assert check.failure is not None
    assert check.failure.startswith("exact_match.mean has no value")


def test_the_metric_may_have_settings() -> None:
    threshold = Threshold.parse("right.pass_at_k(k=2)=0.5")
    assert (threshold.target, threshold.minimum) == ("right.pass_at_k(k=2)", 0.5)
    assert str(threshold) == "right.pass_at_k(k=2)=0.5"


@pytest.mark.parametrize(
    "text", ["", "accuracy=1", "exact_match.accuracy", "a.b=", "a.b=x", "a.b=nan", "=1", ".=1", "r.p(k=2)"]
)
def test_text_that_is_no_threshold_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-under"):
        Threshold.parse(text)

"""Gates: what they are held against, and what they say."""

from __future__ import annotations

import pytest

from doteval.analysis.summary import ScoreColumn, Summary, summarize
from doteval.analysis.thresholds import Gate, judge
from doteval.core.experiments import Counts
from doteval.errors import UsageError


def summary(*values: object, failed: int = 0, metrics: tuple[str, ...] = ("accuracy", "mean")) -> Summary:
    columns = [ScoreColumn("exact_match", metrics, list(values))] if values else []
    return summarize(columns, Counts(len(values) + failed, len(values), failed))


def failure(text: str, evaluation: str = "eval_x", *values: object, failed: int = 0) -> str | None:
    verdict = judge(Gate.parse(text), evaluation, summary(*values, failed=failed))
    assert verdict.applies
    return verdict.failure


def test_the_figure_is_held_against_the_value() -> None:
    assert failure("exact_match.accuracy=0.5", "eval_x", True, False) is None
    assert failure("exact_match.accuracy=0.75", "eval_x", True, False) == (
        "exact_match.accuracy is 0.5, under 0.75 (n 2, 95% interval 0.09453 to 0.9055)"
    )
    # Failed rows count as False.
    assert "is 0.25" in str(failure("exact_match.accuracy=0.5", "eval_x", True, False, failed=2))


@pytest.mark.parametrize("name", ["EvalA::eval_b[gpt-large]", "EvalA::eval_b", "eval_b[gpt-large]", "eval_b"])
def test_an_evaluation_may_be_named_shortly(name: str) -> None:
    gate = Gate.parse(f"{name}:exact_match.accuracy=1")
    assert judge(gate, "EvalA::eval_b[gpt-large]", summary(True)).applies
    assert not judge(gate, "EvalA::eval_c[gpt-large]", summary(True)).applies
    assert judge(gate, "EvalA::eval_b[gpt-large]", summary(False)).failure is not None


def test_a_gate_for_another_score_does_not_apply_and_one_for_another_metric_fails() -> None:
    assert not judge(Gate.parse("judge.accuracy=1"), "eval_x", summary(True)).applies
    assert failure("exact_match.f1=1", "eval_x", True) == (
        "there is no exact_match.f1 (--fail-under exact_match.f1=1): there is exact_match.accuracy, exact_match.mean"
    )
    assert "there is no judge.accuracy" in str(failure("eval_x:judge.accuracy=1", "eval_x", True))


def test_without_any_row_that_is_done_no_gate_is_met() -> None:
    assert "no row is done" in str(failure("judge.accuracy=0", "eval_x", failed=3))
    assert "no row is done" in str(failure("eval_x:judge.accuracy=0", "eval_x", failed=3))
    assert not judge(Gate.parse("eval_y:judge.accuracy=0"), "eval_x", summary(failed=3)).applies


def test_a_metric_without_a_value_does_not_meet_a_gate() -> None:
    broken = summary("label", metrics=("mean",))
    verdict = judge(Gate.parse("exact_match.mean=0"), "eval_x", broken)
    assert verdict.failure is not None
    assert verdict.failure.startswith("exact_match.mean has no value")


def test_metrics_with_settings() -> None:
    gate = Gate.parse("right.pass_at_k(k=2)=0.5")
    assert (gate.target, gate.least) == ("right.pass_at_k(k=2)", 0.5)
    assert str(gate) == "right.pass_at_k(k=2)=0.5"


@pytest.mark.parametrize(
    "text", ["", "accuracy=1", "exact_match.accuracy", "a.b=", "a.b=x", "a.b=nan", "=1", ".=1", "r.p(k=2)"]
)
def test_what_is_no_gate_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="--fail-under"):
        Gate.parse(text)

"""Judged evaluations, with names and reasons that harm what does not escape them."""

from __future__ import annotations

from datetime import UTC, datetime

from doteval.analysis.judgement import JudgedEvaluation
from doteval.analysis.summary import MetricValue, ScoreSummary, Summary
from doteval.core.experiments import Counts, Evaluation, EvaluationSpec, EvaluationStatus, Experiment
from doteval.core.states import EvaluationEnd
from doteval.metrics import Interval

COUNTS = Counts(40, done=30, failed=8, skipped=2)


def judged(
    name: str = "eval_qa",
    *missed: str,
    path: str = "evals/eval_qa.py",
    status: EvaluationStatus = EvaluationStatus.COMPLETED,
    reason: str | None = None,
    cause: EvaluationEnd | None = None,
    score: str = "right",
    value: float | None = 0.75,
) -> JudgedEvaluation:
    """An evaluation that took 2.5 s, with the metric `accuracy` of one score."""
    evaluation = Evaluation(
        1,
        "uid",
        Experiment(1, "nightly", datetime(2026, 1, 2, tzinfo=UTC)),
        EvaluationSpec(path, name, ("x",)),
        status,
        reason,
        COUNTS,
        datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        end_cause=cause,
    )
    metric = MetricValue("accuracy", value, 38, None if value is None else Interval(0.5, 0.875, "Wilson"))
    return JudgedEvaluation(evaluation, Summary(COUNTS, (ScoreSummary(score, (metric,), 8),)), 2.5, missed)

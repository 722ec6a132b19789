"""Thresholds: the least value that a metric must have, as in ``--fail-under exact_match.accuracy=0.9``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from doteval.analysis.figures import figure_beside, interval
from doteval.analysis.summary import MetricValue, Summary
from doteval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Threshold:
    """A metric that must not be under `minimum`.

    `target` is ``SCORE.METRIC`` for every evaluation that has this score, or
    ``EVALUATION:SCORE.METRIC``, where EVALUATION may leave out the parameters and the class.
    """

    target: str
    minimum: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """Read a threshold from the command line.

        >>> Threshold.parse("exact_match.accuracy=0.9")
        Threshold(target='exact_match.accuracy', minimum=0.9)

        Raises UsageError if the text is not ``[EVALUATION:]SCORE.METRIC=VALUE``.
        """
        # The name of a metric may contain settings, as in pass_at_k(k=2): the value follows the last "=".
        target, sign, value = text.rpartition("=")
        target = target.strip()
        try:
            minimum = float(value)
        except ValueError:
            # Such as "2)" of "score.pass_at_k(k=2)", which lacks a value.
            minimum = math.nan
        if not sign or "." not in target.strip(".") or math.isnan(minimum):
            raise UsageError(
                f"--fail-under {text!r} is not [EVALUATION:]SCORE.METRIC=VALUE",
                remedy="For example: --fail-under exact_match.accuracy=0.9",
            )
        return cls(target, minimum)

    def __str__(self) -> str:
        return f"{self.target}={self.minimum:g}"


@dataclass(frozen=True, slots=True)
class ThresholdCheck:
    """The result of checking one evaluation.

    `applies` is False if the threshold is for other evaluations; `failure` says why it is missed, None if it is met.
    """

    applies: bool
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class MissedThreshold:
    """The reason why a command must not pass, as a sentence with the figures.

    evaluation: ``file::name`` of the evaluation that it is about, None if it is about no single one.
    """

    message: str
    evaluation: str | None = None


def check_threshold(threshold: Threshold, evaluation: str, summary: Summary) -> ThresholdCheck:
    """Check an evaluation, given by its name and summary, against a threshold."""
    own_target = _without_evaluation(threshold.target, evaluation)
    target = threshold.target if own_target is None else own_target
    for score in summary:
        for metric in score.metrics:
            if target == f"{score.name}.{metric.name}":
                return ThresholdCheck(True, _failure(threshold, target, metric))
    known = [f"{score.name}.{metric.name}" for score in summary for metric in score.metrics]
    # Without any scores, only a colon shows that the threshold is for another evaluation.
    may_apply = own_target is not None or ":" not in target
    if may_apply and not known and summary.counts.failed and not summary.counts.done:
        return ThresholdCheck(True, f"there is no {target}, since no row is done (--fail-under {threshold})")
    has_score = any(target.startswith(f"{score.name}.") for score in summary)
    if own_target is not None or has_score:
        there_is = f"there is {', '.join(known)}" if known else "there are no metrics"
        return ThresholdCheck(True, f"there is no {target} (--fail-under {threshold}): {there_is}")
    return ThresholdCheck(False)


def short_names(evaluation: str) -> Sequence[str]:
    """The names by which an evaluation may be given: with or without its parameters, with or without its class.

    >>> short_names("EvalA::eval_b[gpt]")
    ('EvalA::eval_b[gpt]', 'EvalA::eval_b', 'eval_b[gpt]', 'eval_b')
    """
    plain = evaluation.partition("[")[0]
    return (evaluation, plain, evaluation[plain.rfind("::") + 2 :] if "::" in plain else evaluation, _last(plain))


def _last(name: str) -> str:
    return name.rpartition("::")[2]


def _without_evaluation(target: str, evaluation: str) -> str | None:
    """The target without the name of this evaluation in front; None if it names another one, or none."""
    for name in short_names(evaluation):
        if target.startswith(f"{name}:"):
            return target[len(name) + 1 :]
    return None


def _failure(threshold: Threshold, target: str, metric: MetricValue) -> str | None:
    if metric.value is None or math.isnan(metric.value):
        reason = metric.note or "not a number"
        return f"{target} has no value ({reason}), and --fail-under requires {threshold.minimum:g}"
    if metric.value >= threshold.minimum:
        return None
    within = "" if metric.interval is None else f", 95% interval {interval(metric.interval)}"
    value = figure_beside(metric.value, threshold.minimum)
    return f"{target} is {value}, under {threshold.minimum:g} (n {metric.n:,}{within})"

"""Gates: figures that an evaluation must reach, else it fails. ``--fail-under exact_match.accuracy=0.9``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from doteval.analysis.summary import MetricValue, Summary
from doteval.errors import UsageError


@dataclass(frozen=True, slots=True)
class Gate:
    """A metric that must not be under `least`.

    `target` is ``SCORE.METRIC`` for every evaluation that has this score, or
    ``EVALUATION:SCORE.METRIC``, where EVALUATION may leave parameters and class out.
    """

    target: str
    least: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """A gate as the command line has it.

        Raises UsageError if it does not read ``[EVALUATION:]SCORE.METRIC=VALUE``.
        """
        # Metrics may hold settings, as in pass_at_k(k=2): the value is behind the last sign.
        target, sign, value = text.rpartition("=")
        target = target.strip()
        try:
            least = float(value)
        except ValueError:
            least = math.nan
        # A value that is missing: `pass_at_k(k=2)` ends with a number, but not with one of ours.
        if not sign or "." not in target.strip(".") or math.isnan(least):
            raise UsageError(
                f"--fail-under {text!r} is not [EVALUATION:]SCORE.METRIC=VALUE",
                remedy="For example: --fail-under exact_match.accuracy=0.9",
            )
        return cls(target, least)

    def __str__(self) -> str:
        return f"{self.target}={self.least:g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate says of an evaluation: `applies` is False where it is for others; `failure` is None if it is met."""

    applies: bool
    failure: str | None = None


def judge(gate: Gate, evaluation: str, summary: Summary) -> Verdict:
    """Hold an evaluation, by its name and summary, against a gate."""
    mine = _without_evaluation(gate.target, evaluation)
    target = gate.target if mine is None else mine
    for score in summary:
        for metric in score.metrics:
            if target == f"{score.name}.{metric.name}":
                return Verdict(True, _failure(gate, target, metric))
    known = [f"{score.name}.{metric.name}" for score in summary for metric in score.metrics]
    # Without scores, a colon is what tells that another evaluation is meant.
    may_be_mine = mine is not None or ":" not in target
    if may_be_mine and not known and summary.counts.failed and not summary.counts.done:
        return Verdict(True, f"there is no {target}, since no row is done (--fail-under {gate})")
    of_mine = any(target.startswith(f"{score.name}.") for score in summary)
    if mine is not None or of_mine:
        there_is = f"there is {', '.join(known)}" if known else "there are no metrics"
        return Verdict(True, f"there is no {target} (--fail-under {gate}): {there_is}")
    return Verdict(False)


def short_names(evaluation: str) -> Sequence[str]:
    """What an evaluation may be called: with its parameters or without, with its class or without."""
    plain = evaluation.partition("[")[0]
    return (evaluation, plain, evaluation[plain.rfind("::") + 2 :] if "::" in plain else evaluation, _last(plain))


def _last(name: str) -> str:
    return name.rpartition("::")[2]


def _without_evaluation(target: str, evaluation: str) -> str | None:
    """The target without the evaluation's name before it; None if it names none, or another."""
    for name in short_names(evaluation):
        if target.startswith(f"{name}:"):
            return target[len(name) + 1 :]
    return None


def _failure(gate: Gate, target: str, metric: MetricValue) -> str | None:
    if metric.value is None or math.isnan(metric.value):
        return f"{target} has no value ({metric.note or 'not a number'}), and --fail-under wants {gate.least:g}"
    if metric.value >= gate.least:
        return None
    interval = ""
    if metric.interval is not None:
        interval = f", 95% interval {metric.interval.low:.4g} to {metric.interval.high:.4g}"
    return f"{target} is {metric.value:.4g}, under {gate.least:g} (n {metric.n}{interval})"

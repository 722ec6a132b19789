"""Holds the judgement on the evaluations of a command, for JUnit files and for GitHub."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from doteval.analysis.summary import Summary
from doteval.analysis.thresholds import MissedThreshold
from doteval.core.experiments import Evaluation, EvaluationStatus
from doteval.core.states import EvaluationEnd

if TYPE_CHECKING:
    # It takes numpy, which only comparisons need.
    from doteval.analysis.compare import Comparison


class JudgedOutcome(Enum):
    """The outcome that a JUnit file or GitHub reports for an evaluation."""

    PASSED = auto()
    FAILED = auto()
    SKIPPED = auto()


@dataclass(frozen=True, slots=True)
class JudgedEvaluation:
    """An evaluation with its metrics, in which failed rows count as False.

    seconds: how long it took.
    missed: why it does not pass the thresholds, in sentences.
    """

    evaluation: Evaluation
    summary: Summary
    seconds: float
    missed: tuple[str, ...] = ()

    @property
    def outcome(self) -> JudgedOutcome:
        """Return FAILED if it misses a threshold or did not end with all of its rows, whatever the exit code."""
        status, cause = self.evaluation.status, self.evaluation.end_cause
        if self.missed:
            return JudgedOutcome.FAILED
        if status is EvaluationStatus.SKIPPED or cause is EvaluationEnd.EXPECTED_FAILURE:
            return JudgedOutcome.SKIPPED
        return JudgedOutcome.PASSED if status is EvaluationStatus.COMPLETED else JudgedOutcome.FAILED

    @property
    def reasons(self) -> list[str]:
        """The reasons why the evaluation did not pass, in sentences."""
        if self.evaluation.status is EvaluationStatus.COMPLETED:
            return list(self.missed)
        running = self.evaluation.status is EvaluationStatus.RUNNING
        state = f"{self.evaluation.spec.nodeid} {'has not ended' if running else f'is {self.evaluation.status.value}'}"
        return [f"{state}: {self.evaluation.reason}" if self.evaluation.reason else state, *self.missed]


@dataclass(frozen=True, slots=True)
class Judgement:
    """The evaluations of one command.

    missed: all that misses a threshold.
    unrecorded: why evaluations could not be submitted, where no ending of theirs says so, in sentences.
    baseline: what they were compared with, None without any; `comparison` is None if it has none of them.
    """

    experiment: str
    evaluations: tuple[JudgedEvaluation, ...]
    missed: tuple[MissedThreshold, ...] = ()
    unrecorded: tuple[str, ...] = ()
    baseline: str | None = None
    comparison: Comparison | None = None

    @property
    def unassigned(self) -> list[str]:
        """The reasons why the command does not pass that concern no single evaluation, in sentences."""
        return [*(each.message for each in self.missed if each.evaluation is None), *self.unrecorded]

    @property
    def passed(self) -> bool:
        return not self.unassigned and all(each.outcome is not JudgedOutcome.FAILED for each in self.evaluations)

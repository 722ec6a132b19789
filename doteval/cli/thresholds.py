"""The thresholds of `submit`, `retry` and `watch`: figures that make the command exit with 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from doteval.cli.options import grouped_options
from doteval.cli.streams import say_aside
from doteval.core.states import EvaluationEnd
from doteval.core.wording import counted

if TYPE_CHECKING:
    from doteval.analysis.judgement import Judgement
    from doteval.analysis.thresholds import MissedThreshold
    from doteval.cli.show import Figures
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.store import Store
    from doteval.store.comparisons import BaselineCheck

# Reasons of a failure that are printed; the rest is counted.
_REASONS_SHOWN = 20
_OPTIONS = (
    click.option(
        "--fail-under",
        multiple=True,
        metavar="[EVALUATION:]SCORE.METRIC=VALUE",
        help="Exit with 1 if this metric is less than VALUE; repeatable.",
    ),
    click.option(
        "--fail-if-worse",
        metavar="BASELINE",
        help="Exit with 1 if a score is worse than in this experiment, as doteval compare judges it. The word "
        "`baseline` is the one of doteval baseline.",
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="X",
        help="The drop that --fail-if-worse allows, as in 0.01 for one point.",
    ),
    click.option(
        "--max-errors",
        type=click.IntRange(min=0),
        metavar="N",
        help="Exit with 1 if more than N rows of an evaluation fail; submit and retry stop it then.",
    ),
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the figures of a command must hold.

    fail_under: as `doteval.analysis.thresholds` parses them.
    baseline: the experiment that they must not be worse than, None without any.
    max_errors: how many rows of an evaluation may fail, None for any number.
    """

    fail_under: tuple[str, ...] = ()
    baseline: str | None = None
    max_drop: float | None = None
    max_errors: int | None = None

    @classmethod
    def from_options(
        cls, fail_under: tuple[str, ...], fail_if_worse: str | None, max_drop: float | None, max_errors: int | None
    ) -> Thresholds:
        """The thresholds of a command line.

        Raises click.UsageError: the options do not fit together. Raises UsageError: a threshold cannot be read.
        """
        if max_drop is not None and fail_if_worse is None:
            raise click.UsageError("--max-drop says which drop --fail-if-worse allows. Give both.")
        if fail_under:
            from doteval.analysis.thresholds import Threshold

            for text in fail_under:
                Threshold.parse(text)
        return cls(fail_under, fail_if_worse, max_drop, max_errors)

    def __bool__(self) -> bool:
        return bool(self.fail_under) or self.baseline is not None or self.max_errors is not None

    def check_baseline(self, store: Store, experiment: str) -> None:
        """Check that the baseline exists and is another experiment, before anything is spent.

        Raises NotFoundError or UsageError: it does not, or is not.
        """
        if self.baseline is not None:
            from doteval.store.comparisons import check_baseline

            check_baseline(store, self.baseline, experiment)

    def judge(
        self,
        store: Store,
        experiment: Experiment,
        results: Sequence[tuple[Evaluation, Figures]],
        unrecorded: tuple[str, ...] = (),
    ) -> Judgement:
        """Hold the figures of evaluations, in which failed rows count as False, against the thresholds.

        An evaluation that was not completed misses every threshold. One that was stopped at ``--max-errors`` misses
        that one, whichever command stopped it.

        unrecorded: why evaluations could not be submitted, where no ending of theirs says so.

        Raises NotFoundError: no evaluation belongs to one of the baseline.
        """
        from doteval.analysis.judgement import JudgedEvaluation, Judgement

        missed, check = self._missed(store, results)
        judged = []
        for evaluation, figures in results:
            own = [each.message for each in missed if each.evaluation == evaluation.spec.nodeid]
            judged.append(JudgedEvaluation(evaluation, figures.as_false, figures.time.worked, tuple(own)))
        return Judgement(
            experiment.name,
            tuple(judged),
            tuple(missed),
            unrecorded,
            self.baseline if check is None else check.baseline,
            None if check is None else check.comparison,
        )

    def _missed(
        self, store: Store, results: Sequence[tuple[Evaluation, Figures]]
    ) -> tuple[list[MissedThreshold], BaselineCheck | None]:
        from doteval.analysis.thresholds import MissedThreshold

        missed = [
            MissedThreshold(f"{evaluation.spec.nodeid}{why}", evaluation.spec.nodeid)
            for evaluation, _ in results
            for why in self._unfit(evaluation)
        ]
        if not self:
            return missed, None
        if not results:
            missed.append(MissedThreshold("there are no evaluations, and so no figures to judge"))
        missed += self._under(results)
        check = None
        if self.baseline is not None and results:
            from doteval.store.comparisons import ComparisonOptions, check_not_worse

            options = ComparisonOptions(max_drop=self.max_drop)
            check = check_not_worse(store, self.baseline, [evaluation for evaluation, _ in results], options)
            missed += check.missed
        return list(dict.fromkeys(missed)), check

    def _unfit(self, evaluation: Evaluation) -> Iterator[str]:
        """Why an evaluation misses the thresholds whatever its figures are, to be read after its name."""
        failed, most = evaluation.counts.failed, self.max_errors
        stopped = evaluation.end_cause is EvaluationEnd.TOO_MANY_ERRORS
        if most is not None and failed > most:
            left = ", and the evaluation was stopped" if stopped else ""
            yield f": {counted(failed, 'row has', 'rows have')} failed, more than the {most} of --max-errors{left}"
        elif stopped:
            yield f" was stopped: {evaluation.reason}"
        if self and evaluation.status != "completed" and not stopped:
            yield f" is {evaluation.status.value}, and misses every threshold"

    def _under(self, results: Sequence[tuple[Evaluation, Figures]]) -> list[MissedThreshold]:
        if not self.fail_under:
            return []
        from doteval.analysis.thresholds import MissedThreshold, Threshold, check_threshold

        missed = []
        for threshold in map(Threshold.parse, self.fail_under):
            checks = [
                (each.spec.nodeid, check_threshold(threshold, each.name, read.as_false)) for each, read in results
            ]
            missed += [
                MissedThreshold(f"{nodeid}: {check.failure}", nodeid)
                for nodeid, check in checks
                if check.failure is not None
            ]
            if not any(check.applies for _, check in checks):
                missed.append(MissedThreshold(f"--fail-under {threshold}: no evaluation has this score"))
        return missed


def enforce(judgement: Judgement) -> None:
    """End the command with exit code 1 if an evaluation misses a threshold, saying which and by how much."""
    fail([missed.message for missed in judgement.missed])


def fail(reasons: Sequence[str]) -> None:
    """End the command with exit code 1 if there are reasons why it must not pass, and say the first of them."""
    for reason in reasons[:_REASONS_SHOWN]:
        say_aside(reason, label="Failed:")
    if len(reasons) > _REASONS_SHOWN:
        say_aside(f"and {counted(len(reasons) - _REASONS_SHOWN, 'more reason')}")
    if reasons:
        click.get_current_context().exit(1)


threshold_options = grouped_options("thresholds", Thresholds.from_options, _OPTIONS)
"""Adds the options of thresholds to a command, which gets `Thresholds`."""

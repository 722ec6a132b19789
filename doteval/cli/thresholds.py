"""The thresholds of `submit`, `retry` and `watch`: figures that make the command exit with 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from doteval.cli.streams import say_aside

if TYPE_CHECKING:
    from doteval.analysis.summary import Summary
    from doteval.core.experiments import Evaluation
    from doteval.store import Store

Command = TypeVar("Command", bound=Callable[..., Any])

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
        help="Exit with 1 if a score is worse than in this experiment, as doteval compare judges it.",
    ),
    click.option(
        "--max-drop",
        type=click.FloatRange(min=0),
        metavar="X",
        help="The drop that --fail-if-worse allows, as in 0.01 for one point.",
    ),
)


def threshold_options(command: Command) -> Command:
    """Add the options that `Thresholds.from_options` takes."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the figures of a command must hold.

    fail_under: as `doteval.analysis.thresholds` parses them.
    baseline: the experiment that they must not be worse than, None without any.
    """

    fail_under: tuple[str, ...] = ()
    baseline: str | None = None
    max_drop: float | None = None

    @classmethod
    def from_options(cls, fail_under: tuple[str, ...], fail_if_worse: str | None, max_drop: float | None) -> Thresholds:
        """The thresholds of a command line.

        Raises click.UsageError: the options do not fit together. Raises UsageError: a threshold cannot be read.
        """
        if max_drop is not None and fail_if_worse is None:
            raise click.UsageError("--max-drop says which drop --fail-if-worse allows. Give both.")
        if fail_under:
            from doteval.analysis.thresholds import Threshold

            for text in fail_under:
                Threshold.parse(text)
        return cls(fail_under, fail_if_worse, max_drop)

    def __bool__(self) -> bool:
        return bool(self.fail_under) or self.baseline is not None

    def check_baseline(self, store: Store) -> None:
        """Check that the baseline exists, before anything is spent.

        Raises NotFoundError: there is no such experiment.
        """
        if self.baseline is not None:
            from doteval.store.comparisons import select_evaluations

            select_evaluations(store, self.baseline)

    def enforce(self, store: Store, results: Sequence[tuple[Evaluation, Summary]]) -> None:
        """End the command with exit code 1 if an evaluation misses a threshold, saying which and by how much.

        results: the evaluations with their metrics, in which failed rows count as False.

        An evaluation that was not completed misses every threshold.
        """
        if not self:
            return
        failures = [
            f"{evaluation.spec.nodeid} is {evaluation.status.value}, and misses every threshold"
            for evaluation, _ in results
            if evaluation.status != "completed"
        ]
        if not results:
            failures.append("there are no evaluations, and so no figures to judge")
        failures += self._under(results)
        if self.baseline is not None and results:
            from doteval.store.comparisons import ComparisonOptions, check_not_worse

            options = ComparisonOptions(max_drop=self.max_drop)
            failures += check_not_worse(store, self.baseline, [evaluation for evaluation, _ in results], options)
        for failure in dict.fromkeys(failures):
            say_aside(failure, label="Failed:")
        if failures:
            click.get_current_context().exit(1)

    def _under(self, results: Sequence[tuple[Evaluation, Summary]]) -> list[str]:
        if not self.fail_under:
            return []
        from doteval.analysis.thresholds import Threshold, check_threshold

        failures = []
        for threshold in map(Threshold.parse, self.fail_under):
            checks = [(each, check_threshold(threshold, each.name, summary)) for each, summary in results]
            failures += [f"{each.spec.nodeid}: {check.failure}" for each, check in checks if check.failure is not None]
            if not any(check.applies for _, check in checks):
                failures.append(f"--fail-under {threshold}: no evaluation has this score")
        return failures

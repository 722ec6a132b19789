"""The report that `doteval submit` and `doteval retry` print when every evaluation has ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from doteval.cli.show import Figures, at_one_moment, late_rows, print_evaluation, read_figures
from doteval.cli.thresholds import enforce
from doteval.cli.usage import print_usage
from doteval.cli.watch import raise_unless_completed
from doteval.store.price_origin import price_origin

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.summary import ErrorsAs
    from doteval.cli.ci_reports import CiReports
    from doteval.cli.thresholds import Thresholds
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.errors import DotEvalError
    from doteval.store import Store

# How many errors are shown of each evaluation, equal ones counted.
_ERRORS_SHOWN = 3


class FinalReport:
    """Prints the metrics, the usage, and where the results are; then judges the metrics.

    `read` reads the metrics as soon as the rows have ended. `print` reads the usage later, when the worker processes
    have left, because the teardown of a fixture may call models too; and the metrics again of evaluations whose last
    rows have ended since. `judge` comes last.
    """

    def __init__(self, console: Console, errors_as: ErrorsAs, thresholds: Thresholds, reports: CiReports) -> None:
        self._console = console
        self._errors_as = errors_as
        self._thresholds = thresholds
        self._reports = reports
        self._read: list[tuple[Evaluation, Figures]] = []

    def read(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
        """Read the current metrics of evaluations."""
        self._read = [(each, read_figures(store, each, self._errors_as)) for each in evaluations]

    def print(self, store: Store, experiment: Experiment) -> None:
        """Print the current metrics, then the usage, under the experiment's current name."""
        experiment = store.experiments.current(experiment)
        shown = [evaluation for evaluation, _ in self._read]
        self._read = [self._current(store, *each) for each in self._read]
        for line in late_rows(shown, [evaluation for evaluation, _ in self._read]):
            self._console.print(line)
        self._console.print()
        for evaluation, read in self._read:
            errors = store.results.errors(evaluation.id, _ERRORS_SHOWN) if evaluation.counts.failed else []
            print_evaluation(self._console, evaluation, read, errors)
        report = store.usage.report(experiment)
        print_usage(self._console, report, price_origin(store, experiment, report.models))
        self._console.print(f"Results: {store.url}", soft_wrap=True)
        failed = any(evaluation.counts.failed for evaluation, _ in self._read)
        option = "--errors" if failed else "--full"
        self._console.print(f"To see them: doteval show {shlex.quote(experiment.name)} {option}", soft_wrap=True)

    def _current(self, store: Store, evaluation: Evaluation, figures: Figures) -> tuple[Evaluation, Figures]:
        """What was read, or what is in the store now if it has changed."""
        now = store.evaluations.by_uid(evaluation.uid)
        if (now.status, now.counts) == (evaluation.status, evaluation.counts):
            return evaluation, figures
        return at_one_moment(store, evaluation, self._errors_as)

    def published(self, experiment: str, refused: DotEvalError | None) -> None:
        """Say how to follow a submission that is not waited for. Raises `refused`, if there is one."""
        self._console.print(f"Published. To follow: doteval watch {shlex.quote(experiment)}", soft_wrap=True)
        if refused is not None:
            raise refused

    def check(self, experiment: Experiment, refused: DotEvalError | None) -> None:
        """End the command with its exit code where few rows have run, which are not judged. Raises as `judge` does."""
        raise_unless_completed(experiment, [evaluation for evaluation, _ in self._read], refused)

    def judge(
        self,
        store: Store,
        experiment: Experiment,
        refused: DotEvalError | None = None,
        *,
        unrecorded: tuple[str, ...] = (),
        ran: bool = True,
    ) -> None:
        """Write the reports for automations, and end the command with its exit code if it must not be 0.

        refused: why some evaluations could not be submitted; `unrecorded`, where no ending of theirs says so.
        ran: whether the command has run rows. One that had none to run does not fail for how they ended before.

        Raises what `raise_unless_completed` does.
        """
        experiment = store.experiments.current(experiment)
        judgement = self._thresholds.judge(store, experiment, self._read, unrecorded)
        self._reports.write(judgement)
        if ran:
            raise_unless_completed(experiment, [evaluation for evaluation, _ in self._read], refused)
        if ran or self._thresholds:
            enforce(judgement)

"""What `doteval submit` and `doteval retry` show when all has ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from doteval.cli import terminal
from doteval.cli.show import Figures, print_evaluation, read_figures
from doteval.cli.usage import print_usage
from doteval.cli.watch import tell_in_exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.summary import ErrorsAs
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.store import Store


class Ending:
    """The metrics, the usage, and where the results are.

    Metrics are read as soon as rows have ended. Usage is not: worker processes that leave tear fixtures down, which may
    ask models too.
    """

    def __init__(self, console: Console, errors_as: ErrorsAs) -> None:
        self._console = console
        self._errors_as = errors_as
        self._read: list[tuple[Evaluation, Figures]] = []

    def read(self, store: Store, evaluations: Sequence[Evaluation]) -> None:
        """Read the metrics of evaluations, as they stand."""
        self._read = [(each, read_figures(store, each, self._errors_as)) for each in evaluations]

    def print(self, store: Store, experiment: Experiment) -> None:
        """Show what was read, and what is to be read now. Raises what `tell_in_exit_code` does."""
        self._console.print()
        for evaluation, read in self._read:
            print_evaluation(self._console, evaluation, read)
        print_usage(self._console, store.usage.report(experiment))
        self._console.print(terminal.plain(f"Results: {store.url}"))
        evaluations = [evaluation for evaluation, _ in self._read]
        failed = any(evaluation.counts.failed for evaluation in evaluations)
        option = "--errors" if failed else "--full"
        self._console.print(terminal.plain(f"To see them: doteval show {shlex.quote(experiment.name)} {option}"))
        tell_in_exit_code(experiment, evaluations)

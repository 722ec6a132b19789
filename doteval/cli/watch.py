"""`doteval watch`: follow an experiment from anywhere that reaches its result store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from doteval.cli.options import existing_store, storage_option

if TYPE_CHECKING:
    from doteval.cli.progress import ProgressDisplay
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.store import Store

# Seconds between two queries of the store. Each is one query, whatever the number of rows.
_LOOK_SECONDS = 0.5


@click.command("watch")
@click.argument("name")
@storage_option
def command(name: str, storage: str | None) -> None:
    """Follow the experiment NAME until it is completed. Ctrl-C stops following and nothing else."""
    from doteval.cli import terminal
    from doteval.cli.progress import ProgressDisplay
    from doteval.cli.show import print_evaluation, read_figures

    with existing_store(storage) as store:
        console = terminal.console()
        with ProgressDisplay(console) as follower:
            experiment, evaluations = follow(store, store.experiments.find(name), follower)
        console.print()
        for evaluation in evaluations:
            print_evaluation(console, evaluation, read_figures(store, evaluation))
        raise_unless_completed(experiment, evaluations)


def follow(store: Store, experiment: Experiment, follower: ProgressDisplay) -> tuple[Experiment, list[Evaluation]]:
    """Update a display until no evaluation of an experiment is running. Returns both as they are then.

    The experiment may be renamed meanwhile. Raises NotFoundError if it is deleted.
    """
    while True:
        experiment = store.experiments.current(experiment)
        evaluations = store.evaluations.of(experiment)
        follower.moved(evaluations)
        # An experiment without evaluations has only just begun, or its submitter failed: there is nothing to wait for.
        if all(evaluation.status != "running" for evaluation in evaluations):
            return experiment, evaluations
        time.sleep(_LOOK_SECONDS)


def raise_unless_completed(experiment: Experiment, evaluations: list[Evaluation]) -> None:
    """Make the command fail if an evaluation was not completed. Failed rows do not count as that.

    Raises WorkerError if an evaluation as a whole failed, BudgetError if one was stopped at its budget.
    """
    from doteval.core.budgets import budget_error
    from doteval.errors import WorkerError

    failed = [evaluation for evaluation in evaluations if evaluation.status == "failed"]
    if failed:
        raise WorkerError(
            "; ".join(f"{evaluation.spec.nodeid} failed: {evaluation.reason}" for evaluation in failed),
            remedy="Fix what the reason names and submit again. Rows that are done are not run again.",
        )
    stopped = [stop for evaluation in evaluations if (stop := evaluation.budget_stop) is not None]
    if stopped:
        pending = sum(evaluation.counts.pending for evaluation in evaluations if evaluation.stopped_at_budget)
        raise budget_error(experiment.name, stopped[-1], pending=pending)

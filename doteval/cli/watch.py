"""`doteval watch`: follow an experiment from anywhere that reaches its result store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from doteval.cli.options import existing_store, storage_option

if TYPE_CHECKING:
    from doteval.cli.progress import Follower
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.store import Store

# Seconds between two looks at the store. A look is one query, whatever the number of rows.
_LOOK_SECONDS = 0.5


@click.command("watch")
@click.argument("name")
@storage_option
def command(name: str, storage: str | None) -> None:
    """Follow the experiment NAME until it is completed. Ctrl-C stops following, and nothing else."""
    from doteval.cli import terminal
    from doteval.cli.progress import Follower
    from doteval.cli.show import print_evaluation, read_figures

    with existing_store(storage) as store:
        console = terminal.console()
        with Follower(console) as follower:
            evaluations = follow(store, name, follower)
        console.print()
        for evaluation in evaluations:
            print_evaluation(console, evaluation, read_figures(store, evaluation))
        tell_in_exit_code(store.experiments.find(name), evaluations)


def follow(store: Store, name: str, follower: Follower) -> list[Evaluation]:
    """Feed a display until no evaluation of an experiment is running. Returns the evaluations.

    Raises NotFoundError if there is no such experiment, or if it is deleted meanwhile.
    """
    while True:
        evaluations = store.evaluations.of(store.experiments.find(name))
        follower.moved(evaluations)
        # One without evaluations has only just begun, or its submitter failed: nothing to wait for.
        if all(evaluation.status != "running" for evaluation in evaluations):
            return evaluations
        time.sleep(_LOOK_SECONDS)


def tell_in_exit_code(experiment: Experiment, evaluations: list[Evaluation]) -> None:
    """Let scripts notice what did not come to its end. Failed rows are no such failure.

    Raises WorkerError if an evaluation as a whole failed, BudgetError if one was stopped at its budget.
    """
    from doteval.core.budgets import budget_error, stopped_at_budget
    from doteval.errors import WorkerError

    failed = [evaluation for evaluation in evaluations if evaluation.status == "failed"]
    if failed:
        raise WorkerError(
            "; ".join(f"{evaluation.spec.nodeid} failed: {evaluation.reason}" for evaluation in failed),
            remedy="Mend what the reason says and submit again: rows that are done are not run again.",
        )
    stopped = [evaluation for evaluation in evaluations if stopped_at_budget(evaluation)]
    if stopped:
        pending = sum(evaluation.counts.pending for evaluation in stopped)
        raise budget_error(experiment.name, stopped[-1].reason or "", pending=pending)

"""`doteval watch`: follow an experiment from anywhere that reaches its result store."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import click

from doteval.cli.ci_reports import CiReports, report_options
from doteval.cli.options import EXPERIMENT_NAME, existing_store, storage_option
from doteval.cli.thresholds import Thresholds, enforce, threshold_options

if TYPE_CHECKING:
    from doteval.cli.progress import ProgressDisplay
    from doteval.core.batches import BatchProgress
    from doteval.core.experiments import Evaluation, Experiment
    from doteval.errors import DotEvalError
    from doteval.store import Store

# Seconds between two looks at the store, which take a few queries, whatever the number of rows.
_LOOK_SECONDS = 0.5


@click.command("watch")
@click.argument("name", type=EXPERIMENT_NAME)
@threshold_options
@report_options
@storage_option
def command(
    name: str,
    thresholds: Thresholds,
    reports: CiReports,
    storage: str | None,
) -> None:
    """Follow the experiment NAME until it is completed. Ctrl-C stops following and nothing else."""

    from doteval.cli import terminal
    from doteval.cli.progress import ProgressDisplay
    from doteval.cli.show import at_one_moment, late_rows, print_evaluation

    with existing_store(storage) as store:
        found = store.experiments.find(name)
        thresholds.check_baseline(store, found.name)
        reports.prepare()
        console = terminal.console()
        with ProgressDisplay(console) as follower:
            experiment, evaluations = follow(store, found, follower)
        figures = [at_one_moment(store, evaluation) for evaluation in evaluations]
        shown, evaluations = evaluations, [evaluation for evaluation, _ in figures]
        for line in late_rows(shown, evaluations):
            console.print(line)
        console.print()
        for evaluation, read in figures:
            print_evaluation(console, evaluation, read)
        judgement = thresholds.judge(store, experiment, figures)
        reports.write(judgement)
        raise_unless_completed(experiment, evaluations)
        enforce(judgement)


def follow(store: Store, experiment: Experiment, follower: ProgressDisplay) -> tuple[Experiment, list[Evaluation]]:
    """Update a display until no evaluation of an experiment is running, or nobody runs any. Returns both as they are.

    The experiment may be renamed meanwhile. While the store cannot be used, it is asked again and again.
    Raises NotFoundError if the experiment is deleted.
    """
    from doteval.coordination.claims import nobody_runs
    from doteval.coordination.outage_retry import retry_through_outage
    from doteval.core.liveness import LATE_AFTER_SECONDS

    def look() -> tuple[Experiment, list[Evaluation], dict[int, BatchProgress], bool]:
        current = store.experiments.current(experiment)
        evaluations = store.evaluations.of(current)
        running = [evaluation for evaluation in evaluations if evaluation.status == "running"]
        batches = store.batches.progress_of(evaluations)
        return current, evaluations, batches, all(nobody_runs(store, evaluation) for evaluation in running)

    # Never set: Ctrl-C ends the wait.
    never = threading.Event()
    abandoned_since: float | None = None
    while True:
        experiment, evaluations, batches, is_abandoned = retry_through_outage(
            look, leaving=never, on_message=follower.note, where="screen"
        )
        follower.moved(evaluations, batches)
        # An experiment without evaluations has only just begun, or its submitter failed: there is nothing to wait for.
        if all(evaluation.status != "running" for evaluation in evaluations):
            return experiment, evaluations
        if not is_abandoned:
            abandoned_since = None
        elif abandoned_since is None:
            abandoned_since = time.monotonic()
        elif time.monotonic() - abandoned_since >= LATE_AFTER_SECONDS:
            # Not at the first look, since a command begins an evaluation a moment before it says that it runs it.
            return experiment, evaluations
        time.sleep(_LOOK_SECONDS)


def raise_unless_completed(
    experiment: Experiment, evaluations: list[Evaluation], refused: DotEvalError | None = None
) -> None:
    """Make the command fail if an evaluation was not completed. Failed rows do not count as that.

    Nor does an evaluation that was stopped at ``--max-errors``, which is a threshold.

    `refused`: why some evaluations could not be submitted.

    Raises WorkerError if an evaluation as a whole failed or nobody runs it any more, UsageError or `refused` if its
    file or dataset needs a change, BudgetError if one was stopped at its budget, NothingRanError if none has run a row.
    """
    from doteval.coordination.claims import NOBODY_RUNS_IT
    from doteval.core.budgets import budget_error
    from doteval.core.states import EvaluationEnd
    from doteval.errors import NothingRanError, UsageError, WorkerError

    failed = [each for each in evaluations if each.status == "failed"]
    # Too many errors are a threshold that was missed: `Thresholds.judge` says so.
    no_errors = (EvaluationEnd.EXPECTED_FAILURE, EvaluationEnd.TOO_MANY_ERRORS)
    failed = [each for each in failed if each.end_cause not in no_errors]
    if failed:
        what = "; ".join(f"{evaluation.spec.nodeid} failed: {evaluation.reason}" for evaluation in failed)
        if any(each.end_cause is None or not each.end_cause.is_refusal for each in failed):
            raise WorkerError(
                what,
                remedy="Fix what the reason names and submit again. Rows that are done are not run again.",
                page=_page(failed),
            )
        raise refused or UsageError(what, remedy="Correct it and submit again. Rows that are done are not run again.")
    if refused is not None:
        raise refused
    stopped = [stop for evaluation in evaluations if (stop := evaluation.budget_stop) is not None]
    if stopped:
        pending = sum(evaluation.counts.pending for evaluation in evaluations if evaluation.stopped_at_budget)
        raise budget_error(experiment.name, stopped[-1], pending=pending)
    abandoned = [evaluation for evaluation in evaluations if evaluation.status == "running"]
    if abandoned:
        raise WorkerError(
            "; ".join(f"{evaluation.spec.nodeid}: {NOBODY_RUNS_IT}" for evaluation in abandoned),
            page="troubleshooting#nobody-runs-it",
        )
    if evaluations and not any(evaluation.counts.ran for evaluation in evaluations):
        why = [f"{each.spec.nodeid} is {each.status}: {each.reason}".removesuffix(": None") for each in evaluations]
        raise NothingRanError(f"nothing ran: no row of {experiment.name!r} has run", remedy="\n".join(why))


def _page(failed: list[Evaluation]) -> str | None:
    """The section of the documentation about the first of these evaluations that has one."""
    from doteval.core.states import EvaluationEnd

    pages = {
        EvaluationEnd.FIXTURES_FAILED: "troubleshooting#fixture-fails",
        EvaluationEnd.OTHER_CODE: "troubleshooting#files-differ",
        EvaluationEnd.WORKERS_CANNOT_START: "troubleshooting#workers-cannot-start",
    }
    return next((pages[each.end_cause] for each in failed if each.end_cause in pages), None)

"""`doteval retry`: run failed rows again."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.ci_reports import CiReports, refuse_with_detach, report_options
from doteval.cli.options import (
    BATCH_OPTIONS,
    EXPERIMENT_NAME,
    budget_options,
    early_fork_server,
    errors_as_option,
    evaluation_option,
    existing_store,
    given_of_batch_mode,
    local_fork_server,
    needing_batch,
    placement_options,
    run_options,
    storage_option,
)
from doteval.cli.streams import say_stopped
from doteval.cli.thresholds import Thresholds, threshold_options
from doteval.core.run_config import RunConfig
from doteval.core.wording import counted

if TYPE_CHECKING:
    from doteval.analysis.summary import ErrorsAs

# The class of errors that each value of --only selects.
CLASSES = {
    "infrastructure": "infrastructure",
    "evaluation": "evaluation",
    "timeouts": "timeout",
    "crashes": "crash",
    "quota": "quota",
}


@click.command("retry")
@click.argument("name", type=EXPERIMENT_NAME)
@click.option(
    "--only",
    type=click.Choice(list(CLASSES)),
    multiple=True,
    help="Only rows that failed with this class of error; repeatable.",
)
@evaluation_option
@click.option("--row", type=click.IntRange(min=0), metavar="N", help="Only the row with this index.")
@storage_option
@placement_options(queue="the queue of the rows before")
@budget_options
@errors_as_option
@threshold_options
@report_options
@run_options(RunConfig, names=("replay", *BATCH_OPTIONS))
@click.option("--detach", is_flag=True, help="Return when everything is published; needs --broker.")
def command(
    name: str,
    only: tuple[str, ...],
    evaluation: str | None,
    row: int | None,
    storage: str | None,
    broker: str | None,
    queue: str | None,
    workers: int | None,
    devices: str | None,
    concurrency: int | None,
    max_requests: int | None,
    max_tokens: int | None,
    max_cost: float | None,
    errors_as: ErrorsAs,
    thresholds: Thresholds,
    reports: CiReports,
    replay: bool,
    detach: bool,
    **batches: Any,
) -> None:
    """Run failed rows of the experiment NAME again.

    It needs neither the dataset nor the name of its file. The old errors stay until new results arrive, and
    after that among the attempts that `doteval show NAME --row N` shows. Rows that evaluations left pending
    when they were cancelled or stopped run too; with --only and --row, only where some of the chosen rows
    failed.

    A row asks its models anew. With --replay the calls that it has made are answered from the call journal,
    for rows that failed for another reason than a reply. (If their code was mended: submit --replay.)

    \b
    doteval retry first
    doteval retry first --only evaluation --replay
    doteval retry first --only infrastructure --only timeouts
    doteval retry first --evaluation eval_x --row 17
    """
    if detach:
        refuse_with_detach(thresholds, reports)
    of_batch_mode = given_of_batch_mode()
    early = early_fork_server(broker)

    from doteval.settings import load_settings

    settings = load_settings(broker=broker, queue=queue, workers=workers, devices=devices, concurrency=concurrency)
    fork_server = local_fork_server(early, settings.message_broker, {"--workers": workers, "--devices": devices})

    from doteval.cli import terminal
    from doteval.cli.final_report import FinalReport
    from doteval.cli.progress import ProgressDisplay
    from doteval.core.budgets import Budget
    from doteval.core.results import ErrorClass
    from doteval.submission.retry import RetryOptions, retry

    options = RetryOptions(
        classes=frozenset(ErrorClass(CLASSES[kind]) for kind in only) or None,
        row=row,
        broker=settings.message_broker,
        queue=settings.only_queue if "queue" in settings.model_fields_set else None,
        workers=settings.workers,
        devices=settings.dealt_devices,
        concurrency=settings.concurrency,
        detach=detach,
        budget=Budget(max_requests, max_tokens, max_cost),
        max_errors=thresholds.max_errors,
        replay=replay,
        batches=RunConfig.from_options(batches) if of_batch_mode else None,
        needing_batch=needing_batch(of_batch_mode),
    )
    console = terminal.console()
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        evaluations = store.evaluations.of(experiment, evaluation)
        thresholds.check_baseline(store, experiment.name)
        reports.prepare()
        report = FinalReport(console, errors_as, thresholds, reports)
        display = ProgressDisplay(console, at_the_end=report.read)
        try:
            with display:
                rows = retry(options, store, evaluations, display, fork_server)
            if rows and not detach:
                report.print(store, experiment)
        except KeyboardInterrupt as stopped:
            again = f"doteval retry {shlex.quote(display.experiment_name or name)}"
            say_stopped(stopped, f"To continue: {again}, or submit it again")
            raise
        if not rows:
            console.print("No rows to run: none has failed or was left pending")
            report.read(store, evaluations)
        elif detach:
            published = counted(rows, "row")
            followed = shlex.quote(display.experiment_name or name)
            console.print(f"Published {published}. To follow: doteval watch {followed}", soft_wrap=True)
        if not detach:
            report.judge(store, experiment, ran=rows > 0)

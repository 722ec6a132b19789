"""`doteval submit`: evaluate on worker processes."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.ci_reports import CiReports, refuse_with_detach, report_options
from doteval.cli.estimates import EstimateChoice, EstimatingCommand, estimate_options, refused, same_command
from doteval.cli.options import (
    early_fork_server,
    errors_as_option,
    given_of_batch_mode,
    local_fork_server,
    needing_batch,
    placement_options,
    run_options,
)
from doteval.cli.streams import say_stopped
from doteval.cli.thresholds import Thresholds, threshold_options
from doteval.core.run_config import RunConfig, RunTarget

if TYPE_CHECKING:
    from doteval.analysis.summary import ErrorsAs


def _rows_per_task(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    return value if value is None or value == "auto" else click.IntRange(min=1)(value, param, ctx)


@click.command("submit", cls=EstimatingCommand)
@click.argument("paths", nargs=-1, required=True, metavar="PATH[::NODE]...")
@click.option("-k", "keyword", metavar="EXPRESSION", help="Only evaluations that match, as in pytest.")
@run_options(RunTarget)
@placement_options(queue="doteval")
@click.option(
    "--rows-per-task",
    metavar="auto|N",
    callback=_rows_per_task,
    help="Rows that travel in one row task.  [default: auto]",
)
@run_options(RunConfig)
@errors_as_option
@threshold_options
@report_options
@estimate_options
@click.option("--detach", is_flag=True, help="Return when everything is published; needs --broker.")
@click.option(
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    help="Whose rows workers take first when experiments share them.  [default: normal]",
)
def command(
    paths: tuple[str, ...],
    keyword: str | None,
    broker: str | None,
    queue: str | None,
    workers: int | None,
    devices: str | None,
    concurrency: int | None,
    rows_per_task: int | str | None,
    errors_as: ErrorsAs,
    thresholds: Thresholds,
    reports: CiReports,
    choice: EstimateChoice,
    detach: bool,
    priority: str | None,
    **values: Any,
) -> None:
    """Evaluate the files, directories or single evaluations at PATH on worker processes.

    The same experiment name continues where it stopped: rows that are done are not run again, rows
    that failed are. Ctrl-C, SIGTERM and SIGHUP stop the command; local workers first finish their
    rows in flight, unless a second signal comes.

    \b
    doteval submit eval_x.py --experiment first
    doteval submit evals/eval_x.py::eval_y --samples 20
    doteval submit eval_x.py --experiment first --estimate
    doteval submit evals --experiment all --broker redis://host --storage postgresql://host/db
    """
    if detach:
        refuse_with_detach(thresholds, reports)
    choice.check(thresholds, reports)
    of_batch_mode = given_of_batch_mode()
    early = early_fork_server(broker)

    from doteval.settings import load_settings, settings_among

    settings = load_settings(
        **settings_among(values),
        broker=broker,
        queue=queue,
        workers=workers,
        devices=devices,
        concurrency=concurrency,
        rows_per_task=rows_per_task,
    )
    fork_server = local_fork_server(early, settings.message_broker, {"--workers": workers, "--devices": devices})

    from doteval.broker.fair_queues import Priority
    from doteval.cli import terminal
    from doteval.cli.final_report import FinalReport
    from doteval.cli.progress import ProgressDisplay
    from doteval.core.experiments import ephemeral_name
    from doteval.store import Store
    from doteval.submission.estimation import EstimateOptions
    from doteval.submission.submit import SubmitOptions, submit

    console = terminal.console(stderr=choice.as_json)
    report = FinalReport(console, errors_as, thresholds, reports)
    display = ProgressDisplay(console, at_the_end=report.read)
    estimate: EstimateOptions | None = None
    if choice.rows is not None:
        estimate = EstimateOptions(choice.rows, partial(choice.agrees, display=display, console=console))
    client_config = settings.client_config()
    target = RunTarget.from_options(values)
    name = target.experiment or ephemeral_name()
    options = SubmitOptions(
        paths=paths,
        target=replace(target, experiment=name, storage=settings.storage),
        config=RunConfig.from_options(values, cache=client_config.choice if values["cache"] else None),
        broker=settings.message_broker,
        queue=settings.only_queue,
        workers=settings.workers,
        devices=settings.dealt_devices,
        concurrency=settings.concurrency,
        rows_per_task=None if settings.rows_per_task == "auto" else settings.rows_per_task,
        keyword=keyword,
        detach=detach,
        priority=None if priority is None else Priority(priority),
        client_config=client_config,
        command=tuple(sys.argv),
        max_errors=thresholds.max_errors,
        estimate=estimate,
        needing_batch=needing_batch(of_batch_mode),
    )
    if thresholds.baseline is not None:
        with Store.open(settings.storage, create=False) as store:
            thresholds.check_baseline(store, name)
    reports.prepare()
    try:
        with display:
            submission = submit(options, display, fork_server)
        if not submission.is_whole:
            report.check(submission.experiment, submission.refused)
        elif not detach:
            with Store.open(submission.storage, create=False) as store:
                if not choice.as_json:
                    report.print(store, submission.experiment)
                report.judge(store, submission.experiment, submission.refused, unrecorded=submission.unrecorded)
    except KeyboardInterrupt as stopped:
        again = same_command(display.experiment_name or name, estimate=True)
        say_stopped(stopped, f"To continue: {again}")
        raise
    if not submission.is_whole:
        again = same_command(submission.experiment.name, estimate=False)
        if not choice.estimate_only:
            raise refused(submission.experiment, again)
        console.print(f"Only these rows have run. To run the others: {again}", soft_wrap=True)
    if detach:
        report.published(display.experiment_name or name, submission.refused)

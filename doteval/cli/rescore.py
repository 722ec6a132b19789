"""`doteval rescore`: run an evaluation as it is now on the recorded replies of an experiment."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.ci_reports import CiReports, refuse_with_detach, report_options
from doteval.cli.options import (
    EXPERIMENT_NAME,
    budget_options,
    early_fork_server,
    errors_as_option,
    evaluation_option,
    existing_store,
    local_fork_server,
    placement_options,
    run_options,
    storage_option,
)
from doteval.cli.streams import say_stopped
from doteval.cli.thresholds import Thresholds, threshold_options
from doteval.core.rescoring import MissingCalls
from doteval.core.run_config import RunConfig, RunTarget

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.analysis.summary import ErrorsAs
    from doteval.core.experiments import Experiment
    from doteval.store import Store

# The most frequent types of errors are looked at.
_ERROR_TYPES = 100


@click.command("rescore")
@click.argument("name", type=EXPERIMENT_NAME)
@click.argument("paths", nargs=-1, metavar="[PATH[::NODE]]...")
@click.option("--as", "new", required=True, metavar="NEW", help="The name of the new experiment.")
@click.option(
    "--missing",
    type=click.Choice([str(each) for each in MissingCalls]),
    default=str(MissingCalls.FAIL),
    show_default=True,
    help="Whether a row fails with a call that has no recorded reply, or the call is sent, as for a new judge.",
)
@evaluation_option
@storage_option
@placement_options(queue="doteval")
@budget_options
@run_options(RunTarget, names=("allow_changed", "tag", "note"))
@errors_as_option
@threshold_options
@report_options
@click.option("--detach", is_flag=True, help="Return when everything is published; needs --broker.")
def command(
    name: str,
    paths: tuple[str, ...],
    new: str,
    missing: str,
    evaluation: str | None,
    storage: str | None,
    broker: str | None,
    queue: str | None,
    workers: int | None,
    devices: str | None,
    concurrency: int | None,
    errors_as: ErrorsAs,
    thresholds: Thresholds,
    reports: CiReports,
    detach: bool,
    **values: Any,
) -> None:
    """Run the rows of the experiment NAME again as the evaluation file is now, on the replies of then.

    All calls to models are answered from the call journal of NAME, so that changed evaluators and metrics
    cost no request. The results are the experiment NEW. The same command continues it where it stopped.
    Without PATH it uses the files that NAME ran.

    \b
    doteval rescore first --as first-strict
    doteval rescore first --as first-judged --missing live
    doteval rescore first --as first-v2 eval_x_v2.py
    doteval compare first first-strict
    """
    if detach:
        refuse_with_detach(thresholds, reports)
    early = early_fork_server(broker)

    from doteval.settings import load_settings

    settings = load_settings(
        storage=storage, broker=broker, queue=queue, workers=workers, devices=devices, concurrency=concurrency
    )
    fork_server = local_fork_server(early, settings.message_broker, {"--workers": workers, "--devices": devices})

    from doteval.cli import terminal
    from doteval.cli.final_report import FinalReport
    from doteval.cli.progress import ProgressDisplay
    from doteval.submission.rescore import Source, rescore
    from doteval.submission.submit import SubmitOptions

    console = terminal.console()
    with existing_store(storage) as store:
        experiment = store.experiments.find(name)
        source = Source(experiment, store.evaluations.of(experiment, evaluation), MissingCalls(missing))
        options = SubmitOptions(
            paths=paths,
            target=replace(RunTarget.from_options(values), experiment=new, storage=store.raw_url),
            config=RunConfig.from_options(values),
            broker=settings.message_broker,
            queue=settings.only_queue,
            workers=settings.workers,
            devices=settings.dealt_devices,
            concurrency=settings.concurrency,
            detach=detach,
            client_config=settings.client_config(),
            command=tuple(sys.argv),
            max_errors=thresholds.max_errors,
        )
        thresholds.check_baseline(store, new)
        reports.prepare()
        report = FinalReport(console, errors_as, thresholds, reports)
        display = ProgressDisplay(console, at_the_end=report.read)
        try:
            with display:
                submission = rescore(store, source, options, display, fork_server)
            if not detach:
                report.print(store, submission.experiment)
                _print_unrecorded(console, store, experiment, submission.experiment)
                report.judge(store, submission.experiment, submission.refused, unrecorded=submission.unrecorded)
        except KeyboardInterrupt as stopped:
            say_stopped(stopped, "To continue, run the same command again.")
            raise
        if detach:
            report.published(new, submission.refused)


def _print_unrecorded(console: Console, store: Store, source: Experiment, rescored: Experiment) -> None:
    """Say how many rows have failed because they ask what is not recorded."""
    from doteval.core.call_journal import UnrecordedCallError
    from doteval.core.wording import counted

    for each in store.contents.failures(rescored, _ERROR_TYPES):
        if each.type == UnrecordedCallError.__name__:
            _, example = each.example
            console.print(
                f"{counted(each.rows, 'row')} failed with a call that has no recorded reply in {source.name!r}; such "
                f"calls were not sent. How one differs: doteval show {shlex.quote(rescored.name)} --row {example}. "
                "To send them: the same command with --missing live",
                style="yellow",
                soft_wrap=True,
            )

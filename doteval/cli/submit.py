"""`doteval submit`: evaluate on worker processes."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from doteval.cli.options import (
    budget_options,
    cache_option,
    early_launcher,
    errors_as_option,
    local_launcher,
    placement_options,
    storage_option,
)

if TYPE_CHECKING:
    from doteval.analysis.summary import ErrorsAs

Count = click.IntRange(min=1)
Seconds = click.FloatRange(min=0, min_open=True)


def _rows_per_task(ctx: click.Context, param: click.Parameter, value: str | None) -> int | str | None:
    return value if value is None or value == "auto" else Count(value, param, ctx)


@click.command("submit")
@click.argument("paths", nargs=-1, required=True, metavar="PATH[::NODE]...")
@click.option("--experiment", metavar="NAME", help="Go on with, or begin, this experiment.  [default: a new one]")
@click.option("-k", "keyword", metavar="EXPRESSION", help="Only evaluations that match, as in pytest.")
@click.option("--samples", type=Count, metavar="N", help="Only the first N rows of each dataset.")
@storage_option
@cache_option
@placement_options(queue="doteval")
@click.option(
    "--rows-per-task",
    metavar="auto|N",
    callback=_rows_per_task,
    help="Rows that travel in one row task.  [default: auto]",
)
@click.option("--epochs", type=Count, default=1, metavar="N", help="Samples of every row.  [default: 1]")
@click.option("--max-retries", type=click.IntRange(min=0), metavar="N", help="Tries more after connection errors.")
@click.option("--retry-delay", type=Seconds, metavar="S", help="Seconds before the first of them; doubles from there.")
@click.option("--row-timeout", type=Seconds, metavar="S", help="Seconds that a row may take.  [default: no limit]")
@click.option(
    "--max-crashes", type=Count, metavar="N", help="Worker processes that a row may take along before it is given up."
)
@budget_options
@errors_as_option
@click.option("--detach", is_flag=True, help="Return when everything is published; needs --broker.")
@click.option(
    "--priority",
    type=click.Choice(["high", "normal", "low"]),
    help="Whose rows workers take first, where experiments share them.  [default: normal]",
)
@click.option("--allow-changed", is_flag=True, help="Go on even if code or dataset have changed since.")
def command(
    paths: tuple[str, ...],
    experiment: str | None,
    keyword: str | None,
    samples: int | None,
    storage: str | None,
    broker: str | None,
    queue: str | None,
    workers: int | None,
    devices: str | None,
    concurrency: int | None,
    rows_per_task: int | str | None,
    epochs: int,
    max_retries: int | None,
    retry_delay: float | None,
    row_timeout: float | None,
    max_crashes: int | None,
    max_requests: int | None,
    max_tokens: int | None,
    max_cost: float | None,
    errors_as: ErrorsAs,
    detach: bool,
    priority: str | None,
    allow_changed: bool,
    cache: str | None,
) -> None:
    """Evaluate the files, directories or single evaluations at PATH on worker processes.

    The same experiment name goes on where it stopped: rows that are done are not run again, rows
    that failed are. Ctrl-C stops following; local workers finish their rows in flight first.

    \b
    doteval submit eval_x.py --experiment first
    doteval submit evals/eval_x.py::eval_y --samples 20
    doteval submit evals --experiment all --broker redis://host --storage postgresql://host/db
    """
    early = early_launcher(broker)

    from doteval.settings import load_settings

    settings = load_settings(
        storage=storage,
        broker=broker,
        queue=queue,
        workers=workers,
        devices=devices,
        concurrency=concurrency,
        rows_per_task=rows_per_task,
        cache=cache,
    )
    launcher = local_launcher(early, settings.message_broker, {"--workers": workers, "--devices": devices})

    from doteval.broker.fair_queues import Priority
    from doteval.cli import terminal
    from doteval.cli.final_report import FinalReport
    from doteval.cli.progress import ProgressDisplay
    from doteval.core.budgets import Budget
    from doteval.core.experiments import ephemeral_name
    from doteval.store import Store
    from doteval.submission.submit import SubmitOptions, submit

    client_config = settings.client_config()
    name = experiment or ephemeral_name()
    options = SubmitOptions(
        paths=paths,
        experiment=name,
        storage=settings.storage,
        broker=settings.message_broker,
        queue=settings.only_queue,
        workers=settings.workers,
        devices=settings.dealt_devices,
        concurrency=settings.concurrency,
        rows_per_task=None if settings.rows_per_task == "auto" else settings.rows_per_task,
        samples=samples,
        keyword=keyword,
        detach=detach,
        allow_changed=allow_changed,
        priority=None if priority is None else Priority(priority),
        epochs=epochs,
        row_timeout=row_timeout,
        budget=Budget(max_requests, max_tokens, max_cost),
        cache=None if cache is None else client_config.choice,
        client_config=client_config,
    )
    chosen: dict[str, Any] = {"max_retries": max_retries, "retry_delay": retry_delay, "max_crashes": max_crashes}
    options = replace(options, **{name: value for name, value in chosen.items() if value is not None})
    console = terminal.console()
    ending = FinalReport(console, errors_as)
    try:
        with ProgressDisplay(console, at_the_end=ending.read) as follower:
            submission = submit(options, follower, launcher)
    except KeyboardInterrupt:
        terminal.console(stderr=True).print(
            terminal.plain(f"\nStopped. What is done is stored. To go on: {_again(paths, name)}")
        )
        raise
    if detach:
        console.print(terminal.plain(f"Published. To follow: doteval watch {shlex.quote(name)}"))
        return
    with Store.open(submission.storage, create=False) as store:
        ending.print(store, submission.experiment)


def _again(paths: tuple[str, ...], experiment: str) -> str:
    return f"doteval submit {shlex.join(paths)} --experiment {shlex.quote(experiment)}"

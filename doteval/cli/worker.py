"""`doteval worker`: a long-lived worker service."""

from __future__ import annotations

import click

from doteval.cli.options import cache_option, devices_option, storage_option
from doteval.cli.streams import say_aside

Count = click.IntRange(min=1)
Port = click.IntRange(0, 65535)


@click.command("worker")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option(
    "--broker", metavar="URL", help="Message broker that row tasks come from; required here or in the settings."
)
@storage_option
@cache_option
@click.option(
    "--queue",
    "queues",
    metavar="NAME",
    multiple=True,
    help="Queue that row tasks come from; repeatable, or several with commas.  [default: doteval]",
)
@click.option("--processes", type=Count, metavar="N", help="Worker processes.  [default: one per device, or per core]")
@devices_option
@click.option(
    "--concurrency",
    type=Count,
    metavar="N",
    help="Rows in flight in a worker process.  [default: 10 if async, else 1]",
)
@click.option("--name", metavar="NAME", default="worker", help="Name of the service in tables and in Flower.")
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
    default="INFO",
    help="Lowest level that is logged.  [default: info]",
)
@click.option(
    "--log-format",
    type=click.Choice(["auto", "json", "text"]),
    help="How lines are logged; auto is text on a terminal and JSON elsewhere.  [default: auto]",
)
@click.option(
    "--address", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address of the two ports below."
)
@click.option("--health-port", type=Port, metavar="PORT", help="Serve /health and /ready there.")
@click.option("--metrics-port", type=Port, metavar="PORT", help="Serve /metrics to Prometheus there.")
@click.option(
    "--max-rows-per-process",
    type=Count,
    metavar="N",
    help="Replace a worker process that has stored this many rows.",
)
@click.option(
    "--max-memory-per-process", type=Count, metavar="MB", help="Replace a worker process that uses this much memory."
)
def command(
    paths: tuple[str, ...],
    broker: str | None,
    storage: str | None,
    queues: tuple[str, ...],
    processes: int | None,
    devices: str | None,
    concurrency: int | None,
    name: str,
    log_level: str,
    log_format: str | None,
    address: str,
    health_port: int | None,
    metrics_port: int | None,
    max_rows_per_process: int | None,
    max_memory_per_process: int | None,
    cache: str | None,
) -> None:
    """Serve row tasks for the evaluation files below PATH, and no others, until asked to leave.

    Each worker process loads every session fixture once. SIGTERM, SIGHUP or Ctrl-C ends it in order:
    rows in flight finish and are stored, session fixtures are torn down, and the exit code is 0. A
    second signal ends it at once.

    \b
    doteval worker evals --broker redis://host --storage postgresql://host/db
    """
    from doteval.core.log_format import line, resolve
    from doteval.settings import load_settings
    from doteval.supervision.service import ServiceOptions, serve

    settings = load_settings(
        storage=storage,
        broker=broker,
        queue=",".join(queues) if queues else None,
        processes=processes,
        devices=devices,
        concurrency=concurrency,
        cache=cache,
        log_format=log_format,
    )
    options = ServiceOptions(
        paths=paths,
        broker=settings.message_broker,
        storage=settings.storage,
        queues=settings.queues,
        processes=settings.processes,
        devices=settings.dealt_devices,
        concurrency=settings.concurrency,
        visibility_timeout=settings.visibility_timeout,
        name=name,
        log_level=log_level.upper(),
        log_format=settings.log_format,
        address=address,
        health_port=health_port,
        metrics_port=metrics_port,
        max_rows_per_process=max_rows_per_process,
        max_memory_per_process=max_memory_per_process,
        client_config=settings.client_config(),
    )
    as_json = resolve(settings.log_format) == "json"
    serve(options, on_message=lambda text: say_aside(line(text, ids={"service": name}) if as_json else text))

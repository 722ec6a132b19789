"""`doteval drain`: let a worker service leave in order."""

from __future__ import annotations

import click

from doteval.cli.options import existing_store, storage_option


@click.command("drain")
@click.argument("worker")
@click.option("--broker", metavar="URL", help="Message broker of the worker; it must be named somewhere.")
@storage_option
@click.option("--queue", metavar="NAME", help="Queue of the worker.  [default: doteval]")
@click.option(
    "--patience", type=click.FloatRange(min=0), default=600.0, show_default=True, help="Seconds to wait for its end."
)
def command(worker: str, broker: str | None, storage: str | None, queue: str | None, patience: float) -> None:
    """Let the service WORKER finish its rows in flight and leave; other workers get the rest.

    WORKER is the --name of the service, NAME@HOST for one of several, or the name of a worker process in
    Flower. Where something starts services again when they end, stop that first.
    """
    from doteval.errors import UsageError
    from doteval.settings import load_settings
    from doteval.submission.drain import drain

    settings = load_settings(broker=broker, queue=queue)
    if settings.broker is None:
        raise UsageError(
            "draining goes over the broker, and none is named",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
        )
    with existing_store(storage) as store:
        left = drain(store, settings.broker, settings.queues[0], worker, patience=patience)
    click.echo(f"Left: {', '.join(process.info.service for process in left)}")

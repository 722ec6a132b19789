"""`doteval drain`: let a worker service finish its rows and leave."""

from __future__ import annotations

import click

from doteval.cli.options import existing_store, storage_option
from doteval.cli.streams import say


@click.command("drain")
@click.argument("worker")
@click.option("--broker", metavar="URL", help="Message broker of the worker; required here or in the settings.")
@storage_option
@click.option("--queue", metavar="NAME", help="Queue of the worker.  [default: doteval]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="S",
    default=600.0,
    help="Seconds to wait for its end.  [default: 600]",
)
def command(worker: str, broker: str | None, storage: str | None, queue: str | None, timeout: float) -> None:
    """Let the service WORKER finish its rows in flight and leave; other workers get the rest.

    WORKER is the --name of the service, NAME@HOST for one of several, or the name of a worker process in
    Flower. If something restarts services when they end, stop that first.
    """
    from doteval.errors import UsageError
    from doteval.settings import load_settings
    from doteval.submission.drain import drain

    settings = load_settings(broker=broker, queue=queue)
    if settings.message_broker is None:
        raise UsageError(
            "drain needs a broker, and none is named",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
        )
    with existing_store(storage) as store:
        left = drain(store, settings.message_broker, settings.queues[0], worker, timeout=timeout)
    say(f"Left: {', '.join(process.info.service for process in left)}")

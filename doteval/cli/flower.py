"""`doteval flower`: row tasks and worker processes in the browser."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("flower")
@click.option("--broker", metavar="URL", help="Message broker to look at; it must be named somewhere.")
@click.option("--queue", metavar="NAME", help="Queue that row tasks travel on.  [default: doteval]")
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=5555, show_default=True, help="Port to listen on.")
@click.option(
    "--auth",
    envvar="DOTEVAL_FLOWER_AUTH",
    metavar="USER:PASSWORD",
    help="Ask for these. Better as the variable DOTEVAL_FLOWER_AUTH: everyone can read a command line.",
)
@click.option(
    "--state", type=click.Path(dir_okay=False, path_type=Path), help="File that keeps what Flower knows when it ends."
)
@click.option("--max-tasks", type=click.IntRange(min=1), help="Row tasks that are kept.  [default: 10000]")
@click.option("--url-prefix", metavar="PATH", help="Path that a proxy puts before Flower's own.")
def command(
    broker: str | None,
    queue: str | None,
    address: str,
    port: int,
    auth: str | None,
    state: Path | None,
    max_tasks: int | None,
    url_prefix: str | None,
) -> None:
    """Show worker processes and row tasks in the browser, with Flower.

    Row tasks are named for their evaluation, and show rows, experiment, and counts as their result; never the
    content of rows. An address that others reach needs a user and password.

    \b
    doteval flower --broker redis://host
    """
    from doteval.broker.flower import MOST_TASKS, FlowerOptions, serve_flower
    from doteval.core.redaction import hide_password
    from doteval.errors import UsageError
    from doteval.settings import load_settings

    settings = load_settings(broker=broker, queue=queue)
    if settings.broker is None:
        raise UsageError(
            "Flower needs to know which broker to look at",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
        )
    options = FlowerOptions(
        broker=settings.broker,
        queue=settings.queues[0],
        address=address,
        port=port,
        auth=auth or None,
        state=state,
        max_tasks=max_tasks or MOST_TASKS,
        url_prefix=url_prefix,
    )
    click.echo(f"Flower on http://{address}:{port} for {hide_password(settings.broker)}", err=True)
    serve_flower(options)

"""`doteval flower`: row tasks and worker processes in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from doteval.cli.options import web_url
from doteval.cli.streams import say_aside


@click.command("flower")
@click.option("--broker", metavar="URL", help="Message broker to show; required here or in the settings.")
@click.option("--queue", metavar="NAME", help="Queue that row tasks travel on.  [default: doteval]")
@click.option("--address", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", default=5555, show_default=True, help="Port to listen on."
)
@click.option(
    "--auth",
    envvar="DOTEVAL_FLOWER_AUTH",
    metavar="USER:PASSWORD",
    help="Require this login. Prefer the variable DOTEVAL_FLOWER_AUTH: everyone can read a command line.",
)
@click.option(
    "--state", type=click.Path(dir_okay=False, path_type=Path), help="File that keeps Flower's state when it ends."
)
@click.option(
    "--max-tasks", type=click.IntRange(min=1), metavar="N", help="Number of row tasks to keep.  [default: 10000]"
)
@click.option("--url-prefix", metavar="PATH", help="Path prefix that a proxy adds.")
@click.option(
    "--view-url", envvar="DOTEVAL_VIEW_URL", metavar="URL", help="Address of doteval view, to which pages then link."
)
def command(
    broker: str | None,
    queue: str | None,
    address: str,
    port: int,
    auth: str | None,
    state: Path | None,
    max_tasks: int | None,
    url_prefix: str | None,
    view_url: str | None,
) -> None:
    """Show worker processes and row tasks in the browser, with Flower.

    A row task is named after its evaluation and shows its rows, its experiment, and counts as its result. It
    never shows the content of rows. An address that others can reach needs a user and password.

    \b
    doteval flower --broker redis://host
    """
    from doteval.broker.flower import MOST_TASKS, FlowerOptions, serve_flower
    from doteval.errors import UsageError
    from doteval.settings import load_settings

    settings = load_settings(broker=broker, queue=queue)
    if settings.message_broker is None:
        raise UsageError(
            "Flower needs a broker, and none is named",
            remedy="Name it with --broker URL, DOTEVAL_BROKER or [tool.doteval] in pyproject.toml.",
            page="troubleshooting#flower-empty",
        )
    options = FlowerOptions(
        broker=settings.message_broker,
        queue=settings.queues[0],
        address=address,
        port=port,
        auth=auth or None,
        state=state,
        max_tasks=max_tasks or MOST_TASKS,
        url_prefix=url_prefix,
        view=web_url(view_url, "--view-url"),
    )
    say_aside(f"Flower on http://{address}:{port} for {settings.message_broker}")
    serve_flower(options)

"""`doteval view`: the experiments, their rows and comparisons in the browser."""

from __future__ import annotations

import click

from doteval.cli.options import storage_option, web_url
from doteval.cli.streams import say_aside


@click.command("view")
@storage_option
@click.option("--host", metavar="ADDRESS", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    default=7575,
    show_default=True,
    help="Port to listen on; 0 for a free one.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in this machine's browser.")
@click.option(
    "--token",
    envvar="DOTEVAL_VIEW_TOKEN",
    metavar="TEXT",
    help="Show nothing without it. Prefer the variable DOTEVAL_VIEW_TOKEN: everyone can read a command line.  "
    "[default: a new one where other machines reach the address, else none]",
)
@click.option(
    "--trust-header",
    metavar="NAME",
    help="Let in requests with this header, in which a proxy names the user it has checked.",
)
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME", help="Name of this machine in URLs, as that of the proxy."
)
@click.option(
    "--allow-labels",
    is_flag=True,
    help="Let visitors label rows right or wrong, with a note. The role of the store then has to have the right to "
    "write the table row_label.",
)
@click.option(
    "--flower-url", envvar="DOTEVAL_FLOWER_URL", metavar="URL", help="Flower's address, to which pages then link."
)
def command(
    storage: str | None,
    host: str,
    port: int,
    opens: bool,
    token: str | None,
    trust_header: str | None,
    hosts: tuple[str, ...],
    allow_labels: bool,
    flower_url: str | None,
) -> None:
    """Show experiments, rows and comparisons in the browser, until Ctrl-C.

    The store is only read, also while rows are running; with --allow-labels the labels of people are
    stored in it. An address that others can reach needs a token, which is
    in the URL that this command prints.

    \b
    doteval view --open
    doteval view --allow-labels
    doteval view --storage postgresql://viewer@db/doteval --host 0.0.0.0 --port 8080
    """
    from doteval.settings import load_settings
    from doteval.view.serving import ViewOptions, serve

    options = ViewOptions(
        storage=load_settings(storage=storage).storage,
        host=host,
        port=port,
        token=token or None,
        trust_header=trust_header,
        hosts=hosts,
        flower=web_url(flower_url, "--flower-url"),
        opens_browser=opens,
        takes_labels=allow_labels,
    )
    serve(options, lambda url, shown: say_aside(f"View on {url} for {shown}"))

"""`doteval doctor`: checks everything that a submission needs."""

from __future__ import annotations

import click

from doteval.cli.options import json_option, storage_option


@click.command("doctor")
@click.argument("paths", nargs=-1, metavar="[PATH]...")
@storage_option
@click.option("--broker", metavar="URL", help="Message broker to check.  [default: that of the settings]")
@click.option("--queue", metavar="NAME", help="Queue to check.  [default: doteval]")
@json_option
def command(paths: tuple[str, ...], storage: str | None, broker: str | None, queue: str | None, as_json: bool) -> None:
    """Check broker, result store, worker processes and the evaluation files at PATH.

    Each problem comes with a remedy. The exit code is 0 if there is no problem, else 1. Nothing is changed.
    """
    from doteval.settings import load_settings
    from doteval.submission.doctor import examine

    settings = load_settings(storage=storage, broker=broker, queue=queue)
    examined = examine(paths, storage=settings.storage, broker=settings.message_broker, queues=settings.queues)
    if as_json:
        from doteval.cli import documents

        findings = list(examined)
        well = all(found.well for found in findings)
        documents.write({"well": well, "findings": [documents.finding(found) for found in findings]})
    else:
        from rich.text import Text

        from doteval.cli import terminal

        console = terminal.console()
        well = True
        for found in examined:
            mark = ("OK       ", "green") if found.well else ("PROBLEM  ", "red")
            console.print(Text.assemble(mark, f"{found.name}: ", found.text))
            if not found.well:
                well = False
                if found.remedy:
                    console.print(f"         {found.remedy}")
    raise click.exceptions.Exit(0 if well else 1)

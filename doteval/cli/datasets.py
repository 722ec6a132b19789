"""`doteval datasets`: the registered datasets."""

from __future__ import annotations

import click

from doteval.analysis.figures import count
from doteval.cli.options import json_option
from doteval.core.tables import Table


@click.command("datasets")
@click.option("--name", "-n", metavar="TEXT", help="Only datasets whose name contains this.")
@click.option("--verbose", "-v", is_flag=True, help="Also print splits, columns, number of rows, and how to use each.")
@json_option
def command(name: str | None, verbose: bool, as_json: bool) -> None:
    """List the datasets that @foreach.NAME knows.

    Packages register them in the entry point group doteval.datasets. Some are built in: they are downloaded from the
    Hugging Face hub when an evaluation reads them, for which they need an extra of doteval.
    """
    from doteval.cli import documents, terminal
    from doteval.datasets import available, get_dataset_info

    found = [known for known in available() if (name or "").casefold() in known.casefold()]
    if as_json:
        documents.write({"datasets": [get_dataset_info(known) for known in found]})
        return
    console = terminal.console()
    if not found:
        where = f" whose name contains {name!r}" if name else " are installed"
        console.print(f"No datasets{where}")
        return
    if not verbose:
        for known in found:
            console.print(known)
        return
    table = Table("dataset", "splits", "columns", "use", "needs", "rows", left=5)
    for known in found:
        info = get_dataset_info(known)
        split = repr(info["splits"][0]) if info["splits"] else ""
        table.add_row(
            known,
            ", ".join(map(str, info["splits"])) or "-",
            ", ".join(map(str, info["columns"])) or "-",
            f"@foreach.{known}({split})",
            f"doteval[{info['needs_extra']}]" if info["needs_extra"] else "-",
            count(info["num_rows"]),
        )
    terminal.print_table(console, table)

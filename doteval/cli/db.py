"""`doteval db`: the schema version, upgrade, size, backup and copy of the result store."""

from __future__ import annotations

from pathlib import Path

import click

from doteval.cli.options import existing_store, json_option, storage_option
from doteval.cli.streams import say, say_aside
from doteval.core.wording import counted


@click.group("db")
def command() -> None:
    """Manage the result store: its schema version, upgrades, size, backups and copies.

    Opening a SQLite file upgrades its schema, after making a copy of the file. A PostgreSQL database,
    which others may be using, is upgraded by `doteval db upgrade` only.
    """


@command.command("current")
@storage_option
def current(storage: str | None) -> None:
    """Print the schema version of the store, and the one that this doteval uses."""
    from doteval.settings import load_settings
    from doteval.store import Store

    url = load_settings(storage=storage).storage
    found, newest = Store.versions(url)
    if found is None:
        say(f"no schema yet; this doteval creates {newest}")
    elif found == newest:
        say(f"{found}, the newest")
    else:
        say(f"{found}; this doteval uses {newest}: run doteval db upgrade")


@command.command("upgrade")
@storage_option
def upgrade(storage: str | None) -> None:
    """Upgrade the schema to the version that this doteval uses. An empty database gets its tables."""
    from doteval.settings import load_settings
    from doteval.store import Store

    before, after = Store.upgrade(load_settings(storage=storage).storage)
    if before == after:
        say(f"{after}: nothing to do")
    else:
        say(f"{before or 'no schema'} -> {after}")


@command.command("size")
@storage_option
@json_option
def size(storage: str | None, as_json: bool) -> None:
    """Print what the parts of the store take on disk, in bytes.

    The journal holds the requests and replies of model calls; `doteval prune --journals` drops them. A
    SQLite file does not shrink by that: what comes next goes into the free space.

    \b
    doteval db size
    doteval db size --storage postgresql://host/db --json
    """
    with existing_store(storage) as store:
        sizes = store.sizes()
        if as_json:
            from doteval.cli import documents

            documents.write(
                {
                    "storage": store.url,
                    "total": sizes.total,
                    "parts": dict(sizes.parts),
                    "calls": sizes.calls,
                    "call_bytes": sizes.call_bytes,
                }
            )
            return
        from doteval.cli import terminal
        from doteval.core.tables import Table

        table = Table("part", "bytes", "share", left=1)
        for name, taken in sizes.parts.items():
            table.add_row(name, f"{taken:,}", f"{taken / max(sizes.total, 1):.0%}")
        table.add_row("total", f"{sizes.total:,}", "")
        console = terminal.console()
        terminal.print_table(console, table)
        if not sizes.parts:
            console.print("This SQLite cannot tell the parts of a file", style="yellow")
        bodies = f"; requests and replies take {sizes.call_bytes:,} bytes of it" if sizes.call_bytes else ""
        console.print(f"The journal holds {counted(sizes.calls, 'call')}{bodies}", soft_wrap=True)


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@storage_option
def backup(file: Path, storage: str | None) -> None:
    """Copy the store into FILE while others use it: a SQLite file, or an archive for pg_restore."""
    from doteval.settings import load_settings
    from doteval.store import Store

    Store.back_up(load_settings(storage=storage).storage, file)
    say(f"Copied to {file}: {file.stat().st_size:,} bytes")


@command.command("copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--running", is_flag=True, help="Copy also while experiments run: what is stored at one moment.")
@json_option
def copy(source: str, target: str, running: bool, as_json: bool) -> None:
    """Copy the whole store FROM into TO, which must be new or empty: SQLite to PostgreSQL, say.

    FROM and TO are files or postgresql://... URLs. The copy shows one moment of FROM. Every table is read
    back and compared before the copy is committed; a copy that is interrupted leaves nothing in TO.

    \b
    doteval db copy .doteval/doteval.db postgresql://eval@db.example/results
    doteval db copy postgresql://eval@db.example/results backup.db --running
    """
    from doteval.cli import terminal
    from doteval.cli.copy_progress import CopyProgressDisplay
    from doteval.core import clocks
    from doteval.core.tables import Table
    from doteval.core.wording import duration
    from doteval.submission.copy_store import copy_store

    began = clocks.monotonic()
    with existing_store(source, upgrade=False) as store:
        with CopyProgressDisplay() as display:
            copied, moving = copy_store(store, target, display.moved, running=running)
        seconds = clocks.monotonic() - began
        lines = sum(table.lines for table in copied.tables)
        if as_json:
            from doteval.cli import documents

            tables = [{"name": table.name, "lines": table.lines, "checksum": table.checksum} for table in copied.tables]
            facts = {"lines": lines, "seconds": seconds, "tables": tables, "running": moving}
            documents.write({"from": store.url, "to": copied.target, **facts})
            return
        output = Table("table", "lines", "checksum", left=1)
        for table in copied.tables:
            if table.lines:
                output.add_row(table.name, f"{table.lines:,}", table.checksum)
        terminal.print_table(terminal.console(), output)
        say(f"Copied {counted(lines, 'line')} in {duration(seconds)}; all were read back from {copied.target}")
        for name in moving:
            say_aside(f"{name} is running: the copy has what it had stored when the command began")
        if not running:
            say(
                "Set DOTEVAL_STORAGE to the copy wherever doteval runs. Nothing should write to the old store any more."
            )

"""`doteval db`: the schema version, upgrade, size and backup of the result store."""

from __future__ import annotations

from pathlib import Path

import click

from doteval.cli.options import existing_store, json_option, storage_option
from doteval.cli.streams import say
from doteval.core.wording import counted


@click.group("db")
def command() -> None:
    """Manage the result store: its schema version, upgrades, size and backups.

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

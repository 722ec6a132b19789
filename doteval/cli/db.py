"""`doteval db`: the schema version, upgrade and backup of the result store."""

from __future__ import annotations

from pathlib import Path

import click

from doteval.cli.options import storage_option
from doteval.cli.streams import say


@click.group("db")
def command() -> None:
    """Manage the result store: its schema version, upgrades and backups.

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


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@storage_option
def backup(file: Path, storage: str | None) -> None:
    """Copy the store into FILE while others use it: a SQLite file, or an archive for pg_restore."""
    from doteval.settings import load_settings
    from doteval.store import Store

    Store.back_up(load_settings(storage=storage).storage, file)
    say(f"Copied to {file}: {file.stat().st_size:,} bytes")

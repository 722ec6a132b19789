"""`doteval db`: the result store's schema version, and copies of it."""

from __future__ import annotations

from pathlib import Path

import click

from doteval.cli.options import storage_option


@click.group("db")
def command() -> None:
    """Look after the result store: its schema version, and copies of it.

    A SQLite file is brought to the newest schema when it is opened, after a copy of it was made. A
    PostgreSQL database, which others may be using, is brought forward by `doteval db upgrade` only.
    """


@command.command("current")
@storage_option
def current(storage: str | None) -> None:
    """Say which schema version the store has, and which one this doteval uses."""
    from doteval.settings import load_settings
    from doteval.store import Store

    url = load_settings(storage=storage).storage
    found, newest = Store.versions(url)
    if found is None:
        click.echo(f"no schema yet; this doteval makes {newest}")
    elif found == newest:
        click.echo(f"{found}, the newest")
    else:
        click.echo(f"{found}; this doteval uses {newest}: run doteval db upgrade")


@command.command("upgrade")
@storage_option
def upgrade(storage: str | None) -> None:
    """Bring the schema to the version that this doteval uses. An empty database gets its tables."""
    from doteval.settings import load_settings
    from doteval.store import Store

    before, after = Store.upgrade(load_settings(storage=storage).storage)
    if before == after:
        click.echo(f"{after}: nothing to do")
    else:
        click.echo(f"{before or 'no schema'} -> {after}")


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@storage_option
def backup(file: Path, storage: str | None) -> None:
    """Copy the store into FILE while others use it: a SQLite file, or an archive for pg_restore."""
    from doteval.settings import load_settings
    from doteval.store import Store

    Store.back_up(load_settings(storage=storage).storage, file)
    click.echo(f"Copied to {file}: {file.stat().st_size:,} bytes")

"""The commands of `doteval`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from doteval.cli.application import application


def commands() -> dict[str, click.Command]:
    """Return every command by its full name, ``db upgrade`` too."""
    return dict(_of(application, ""))


def _of(group: click.Group, above: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _of(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command

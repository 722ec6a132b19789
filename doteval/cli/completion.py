"""`doteval completion`: the script with which a shell completes commands, options and the names of experiments."""

from __future__ import annotations

from typing import Any, cast

import click
from click.shell_completion import get_completion_class

from doteval.cli.streams import say

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Write the script with which SHELL completes commands, options and the names of experiments.

    \b
    bash:  doteval completion bash > ~/.local/share/bash-completion/completions/doteval
    zsh:   doteval completion zsh > "${fpath[1]}/_doteval"
    fish:  doteval completion fish > ~/.config/fish/completions/doteval.fish
    """
    # click keeps a class for each of these shells. The type that it declares has no constructor.
    make = cast(Any, get_completion_class(shell))
    say(make(context.find_root().command, {}, "doteval", "_DOTEVAL_COMPLETE").source())

"""Writes lines to standard output and standard error, also where nobody reads them."""

from __future__ import annotations

import sys

import click

from doteval.core.standard_streams import silence
from doteval.core.wording import plain


def say(text: str) -> None:
    """Print a line to standard output, without the control characters it may hold.

    Raises BrokenPipeError: when the reader has closed the pipe.
    """
    click.echo(plain(text))


def say_aside(text: str, *, label: str = "") -> None:
    """Print a line to standard error, without the control characters it may hold, after a red `label`.

    A standard error that nobody reads does not end the command; its exit code tells what happened.
    """
    shown = f"{click.style(label, fg='red', bold=True)} " if label else ""
    try:
        click.echo(f"{shown}{plain(text)}", err=True)
    except OSError:
        silence(sys.stderr)

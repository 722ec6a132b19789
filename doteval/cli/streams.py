"""Writes lines to standard output and standard error, also where nobody reads them."""

from __future__ import annotations

import signal
import sys

import click

from doteval.core.standard_streams import silence
from doteval.core.stop_signals import Stopped
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


def say_stopped(stopped: KeyboardInterrupt, how_to_go_on: str) -> None:
    """Say on standard error that a signal has ended a command that runs rows, and how to go on."""
    by = f" by {stopped.name}" if isinstance(stopped, Stopped) and stopped.number != signal.SIGINT else ""
    say_aside(f"\nStopped{by}. Finished rows are stored. {how_to_go_on}")

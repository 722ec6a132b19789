"""Asks before a command destroys something."""

from __future__ import annotations

import sys

import click


def confirmed(question: str) -> bool:
    """Whether the user agrees.

    Raises UsageError: when nobody can answer, as in a script
    """
    from doteval.errors import UsageError

    try:
        return click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError(
            "nothing was deleted: standard input ended without an answer", remedy="Add --yes to delete without asking."
        ) from None

"""Prints where the results of an experiment come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from doteval.core.provenance import Provenance
from doteval.core.wording import counted

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.store import ExperimentLabels

# Runs that continued an experiment from other code; `--json` has all of them.
_CONTINUED_SHOWN = 3


def print_origin(console: Console, commands: Sequence[Provenance], labels: ExperimentLabels) -> None:
    """Print the commit, user and machine that an experiment began from, those that continued it, and its labels."""
    lines = [f"Begun {where}" for where in map(_where, commands[:1]) if where]
    before = commands[0] if commands else None
    others = []
    for each in commands[1:]:
        if before is not None and _where(each) != _where(before):
            others.append(each)
        before = each
    lines += [f"Continued {_where(each)}" for each in others[:_CONTINUED_SHOWN]]
    if len(others) > _CONTINUED_SHOWN:
        lines.append(f"and continued {counted(len(others) - _CONTINUED_SHOWN, 'more time')}; --json names all")
    if labels.is_baseline:
        lines.append("This is the baseline")
    if labels.tags:
        lines.append(f"Tags: {', '.join(labels.tags)}")
    if labels.note:
        lines.append(f"Note: {labels.note}")
    for line in lines:
        console.print(line, style="dim", soft_wrap=True)
    if lines:
        console.print()


def _where(command: Provenance) -> str:
    git = command.git
    parts = []
    if git is not None:
        changed = " with uncommitted changes" if git.dirty else ""
        parts.append(f"from commit {git.commit[:8]}{f' ({git.branch})' if git.branch else ''}{changed}")
    if command.user:
        parts.append(f"by {command.user}")
    if command.host:
        parts.append(f"on {command.host}")
    return " ".join(parts)

"""Prints where the results of an experiment come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from doteval.core.provenance import Provenance

if TYPE_CHECKING:
    from rich.console import Console

    from doteval.store import ExperimentLabels

# Commands that continued or recomputed an experiment from elsewhere; `--json` has all of them.
_LATER_SHOWN = 3


def print_origin(console: Console, commands: Sequence[Provenance], labels: ExperimentLabels) -> None:
    """Print where an experiment was begun, continued and recomputed, and its labels."""
    lines = [f"Begun {where}" for where in map(_where, commands[:1]) if where]
    later = _later(commands)
    lines += later[:_LATER_SHOWN]
    if len(later) > _LATER_SHOWN:
        lines.append(f"and {len(later) - _LATER_SHOWN:,} times more; --json has all commands")
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


def _later(commands: Sequence[Provenance]) -> list[str]:
    """Say from where an experiment was continued or recomputed, if not from where its rows ran before."""
    lines: list[str] = []
    ran = _where(commands[0]) if commands else ""
    for each in commands[1:]:
        where = _where(each)
        line = f"{'Recomputed' if each.recomputes else 'Continued'} {where}"
        if where and where != ran and lines[-1:] != [line]:
            lines.append(line)
        if not each.recomputes:
            ran = where
    return lines


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

"""Where results come from: the command that began or continued an experiment, and the state of its code."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

_COMMIT_SHOWN = 8


@dataclass(frozen=True, slots=True)
class GitState:
    """What git says of a directory.

    branch: None if no branch is checked out.
    dirty: whether tracked files differ from the commit; None if git did not say so in time.

    >>> GitState("4517fb9d" * 5, "main", dirty=True).short
    '4517fb9d+'
    """

    commit: str
    branch: str | None = None
    dirty: bool | None = None

    @property
    def short(self) -> str:
        """The beginning of the commit, with a plus if files differ from it."""
        return f"{self.commit[:_COMMIT_SHOWN]}{'+' if self.dirty else ''}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """One command that began or continued an experiment.

    command: its arguments without secrets.
    git: None if the evaluations are in no repository, or git could not be asked.
    host: the name of the machine.
    user: who started it.
    versions: of Python, of the packages that decide what a row does, and of the one that says what it costs.
    started_at: by the database's clock, None before it is stored; for imported results, when the log says.
    """

    command: tuple[str, ...]
    git: GitState | None = None
    host: str | None = None
    user: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    started_at: datetime | None = field(default=None, compare=False)

    @property
    def recomputes(self) -> bool:
        """Whether it is `doteval recompute`, which computes metrics and runs no rows.

        >>> Provenance(("python", "-m", "doteval", "recompute", "first")).recomputes
        True
        """
        arguments = self.command[2:] if self.command[:2] == ("python", "-m") else self.command
        return arguments[:2] == ("doteval", "recompute")

    @property
    def command_line(self) -> str:
        """The command as a shell takes it."""
        return shlex.join(self.command)

"""Chooses and sorts the experiments of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from doteval.core.experiments import EvaluationStatus
from doteval.errors import UsageError
from doteval.store.experiments import ExperimentOverview


@dataclass(frozen=True, slots=True)
class ExperimentFilter:
    """Which experiments a list shows; every condition that is given must hold.

    tags: all of them.
    since: began at this moment or later.
    branch: the branch of the commit that it began from.
    search: in any case in the name, the note, a tag, the command line or the branch, or the beginning of the commit.
    """

    tags: tuple[str, ...] = ()
    since: datetime | None = None
    status: EvaluationStatus | None = None
    branch: str | None = None
    search: str | None = None

    def matches(self, line: ExperimentOverview) -> bool:
        """Whether an experiment is one of them."""
        git = None if line.begun_by is None else line.begun_by.git
        return (
            set(self.tags) <= set(line.labels.tags)
            and (self.since is None or line.experiment.created_at >= self.since)
            and (self.status is None or line.status is self.status)
            and (self.branch is None or (git is not None and git.branch == self.branch))
            and (self.search is None or _is_found(self.search.casefold(), line))
        )


def _is_found(text: str, line: ExperimentOverview) -> bool:
    places = [line.experiment.name, line.labels.note or "", *line.labels.tags]
    commit = ""
    if line.begun_by is not None:
        places.append(line.begun_by.command_line)
        if line.begun_by.git is not None:
            places.append(line.begun_by.git.branch or "")
            commit = line.begun_by.git.commit
    return any(text in place.casefold() for place in places) or commit.startswith(text)


def sort_overviews(lines: Iterable[ExperimentOverview], by: str) -> list[ExperimentOverview]:
    """Sort experiments by a key of `SORT_KEYS`, with a minus in front of it from the last to the first.

    Those without a value come last.

    Raises UsageError: there is no such key.
    """
    name = by.removeprefix("-")
    key = SORT_KEYS.get(name)
    if key is None:
        raise UsageError(f"experiments cannot be sorted by {name!r}", remedy=f"Use one of {', '.join(SORT_KEYS)}.")
    known = [line for line in lines if key(line) is not None]
    unknown = [line for line in lines if key(line) is None]
    return [*sorted(known, key=key, reverse=by.startswith("-")), *unknown]


def _branch(line: ExperimentOverview) -> str | None:
    return None if line.begun_by is None or line.begun_by.git is None else line.begun_by.git.branch


SORT_KEYS: dict[str, Callable[[ExperimentOverview], Any]] = {
    "started": lambda line: line.experiment.created_at,
    "active": lambda line: line.active_at,
    "name": lambda line: line.experiment.name.casefold(),
    "status": lambda line: line.status,
    "evaluations": lambda line: line.evaluations,
    "rows": lambda line: line.counts.total,
    "failed": lambda line: line.counts.failed,
    "cost": lambda line: line.cost,
    "branch": _branch,
    "user": lambda line: None if line.begun_by is None else line.begun_by.user,
}

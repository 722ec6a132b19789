"""What every reader makes of a log: its head, its rows with their results, and a count of what it leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from doteval.core.experiments import Ending
from doteval.core.provenance import GitState
from doteval.core.results import Outcome
from doteval.errors import UsageError


class LogError(UsageError):
    """A log cannot be imported."""


class NoLogError(LogError):
    """A file is no log that anything here reads."""


def unreadable(path: Path, error: OSError) -> LogError:
    """Return the error for a file that the operating system does not give."""
    return LogError(f"{path} cannot be read: {error.strerror or error}", remedy="Check the file.")


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a value of a JSON document if it is an object, else an empty one: logs of old versions lack fields.

    >>> mapping({"a": 1}), mapping(None)
    ({'a': 1}, {})
    """
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class ImportedRow:
    """One row of a log.

    key: what rows of two experiments are paired by; None for a hash of the values, as of rows that doteval runs.
    values: its values by column.
    outcomes: the outcome of each sample that the log has, by the sample's number, from 0.
    index: its place among the rows; None for the one after the row before.
    """

    key: str | None
    values: Mapping[str, Any]
    outcomes: Mapping[int, Outcome]
    index: int | None = None


@dataclass(frozen=True, slots=True)
class LogFigure:
    """A metric of a score as the log gives it. `metric` is the name that the log uses."""

    score: str
    metric: str
    value: float


class Remarks:
    """Counts what a reader leaves out, or does not understand, by a name for people.

    >>> remarks = Remarks()
    >>> remarks.note("events")
    >>> remarks.note("events")
    >>> remarks.counts
    {'events': 2}
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def note(self, what: str) -> None:
        """Count one more of `what`."""
        self._counts[what] += 1

    @property
    def counts(self) -> dict[str, int]:
        """How often each was noted."""
        return dict(sorted(self._counts.items()))


@dataclass(frozen=True, slots=True)
class Log:
    """A log that can be imported as one evaluation.

    path: the file.
    tool: what wrote it, for people, as in ``inspect-ai 0.3.285``; None if nobody knows.
    experiment: the name of its experiment, unless the user gives another.
    file: the file that the evaluation was defined in, as the log says.
    name: the name of the evaluation.
    model: the model that it evaluated, None if the log does not say.
    rows: reads the rows, one at a time; it raises LogError. What is left out is counted in `remarks` as they are read.
    row_count: how many rows the evaluation has, if the log says so; there may be fewer in it.
    epochs: the number of samples of each row.
    reducer: the name of doteval's reducer for the samples of a row.
    ending: how it ended, if not with all of its rows.
    began_at, ended_at: None if the log does not say.
    figures: the metrics that the log has.
    notes: what a reader of the figures has to know.
    """

    path: Path
    tool: str | None
    experiment: str
    file: str
    name: str
    rows: Callable[[Remarks], Iterator[ImportedRow]]
    model: str | None = None
    row_count: int | None = None
    epochs: int = 1
    reducer: str | None = None
    ending: Ending | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None
    git: GitState | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    tags: Sequence[str] = ()
    note: str | None = None
    figures: Sequence[LogFigure] = ()
    notes: Sequence[str] = ()

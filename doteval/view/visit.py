"""What a page knows when it is asked for, and what it gives."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from doteval.coordination.claims import is_left_by_all
from doteval.core.experiments import Counts, Experiment
from doteval.store import Store
from doteval.store.url import DEFAULT_PATH
from doteval.view.calculations import Calculations
from doteval.view.parameters import Parameters, ParameterValue, link

Value = TypeVar("Value")

# Seconds between two looks at a page on which something is being computed, on which something runs, and on which
# nothing does.
COMPUTING_SECONDS = 1
RUNNING_SECONDS = 2
IDLE_SECONDS = 15


@dataclass(slots=True)
class Visit:
    """One request for a page.

    store: its transactions end after a few seconds.
    path: that of the page, without a slash; "." for the first one.
    live_seconds: how often the script looks at the page again, None for never; see `live`.
    status: the status of the answer, for pages that show what is wrong with their parameters.
    """

    store: Store
    calculations: Calculations
    parameters: Parameters
    path: str = "."
    live_seconds: int | None = field(default=None, init=False)
    status: int = field(default=200, init=False)

    def here(self, **changes: ParameterValue) -> str:
        """A link to this page with other parameters; None leaves one out."""
        return link(self.path, **self.parameters.changed(changes))

    def command(self, *words: str) -> str:
        """A command of doteval for this store, to copy.

        The store is named if it is a file other than the one that commands take by themselves; that of a team, whose
        URL may hold a password, is in the settings.
        """
        path = self.store.url.removeprefix("sqlite:///")
        elsewhere = path != self.store.url and path != str(DEFAULT_PATH.absolute())
        return shlex.join(["doteval", *words, *(["--storage", path] if elsewhere else [])])

    def live(self, *, running: bool) -> None:
        """Have the script look at this page again and again: often while something runs, seldom else."""
        self._look_again(RUNNING_SECONDS if running else IDLE_SECONDS)

    def compute(self, key: Hashable, function: Callable[[Store], Value], *, waits: bool = True) -> Value | None:
        """What a function computes in the background, None until it is there; see `Calculations.get`.

        The script looks at the page again soon, to show it.

        waits: whether to wait a moment for it.
        """
        value = self.calculations.get(key, function, waits=waits)
        if value is None:
            self._look_again(COMPUTING_SECONDS)
        return value

    def is_abandoned(self, experiment: Experiment) -> bool:
        """Whether nobody runs the evaluations of an experiment that are running by their status."""
        return self.calculations.recent(("abandoned", experiment.id), lambda: is_left_by_all(self.store, experiment))

    def _look_again(self, seconds: int) -> None:
        self.live_seconds = min(seconds, self.live_seconds or seconds)


def progress_key(counts: Counts, *, running: bool) -> Hashable:
    """The state of results, for the key of a calculation: while rows run, it changes at every 50th of them.

    >>> progress_key(Counts(100, 41), running=True) == progress_key(Counts(100, 40), running=True)
    True
    """
    if not running:
        return counts
    return ("running", 50 * counts.finished // counts.total if counts.total else counts.finished.bit_length())


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    path: with a slash and one part.
    template: None for an image, whose `read` returns it as `image`, an SVG document.
    read: returns what the template is given. It is called on a thread.
    """

    path: str
    template: str | None
    read: Callable[[Visit], Mapping[str, Any]]

    @property
    def media_type(self) -> str:
        return "text/html" if self.template is not None else "image/svg+xml"

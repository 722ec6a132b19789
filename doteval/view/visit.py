"""What a page knows when it is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from doteval.store import Store
from doteval.view.calculations import Calculations
from doteval.view.parameters import Parameters, ParameterValue, link

# Seconds between two looks at a page on which something runs, and on which nothing does.
RUNNING_SECONDS = 2
IDLE_SECONDS = 15


@dataclass(slots=True)
class Visit:
    """One request for a page.

    store: its transactions end after a few seconds.
    path: that of the page, without a slash; "." for the first one.
    live_seconds: how often the script looks at the page again, None for never; see `live`.
    """

    store: Store
    calculations: Calculations
    parameters: Parameters
    path: str = "."
    live_seconds: int | None = field(default=None, init=False)

    def here(self, **changes: ParameterValue) -> str:
        """A link to this page with other parameters; None leaves one out."""
        return link(self.path, **self.parameters.changed(changes))

    def live(self, *, running: bool) -> None:
        """Have the script look at this page again and again: often while something runs, seldom else."""
        self.live_seconds = RUNNING_SECONDS if running else IDLE_SECONDS


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    path: with a slash and one part.
    read: returns what the template is given. It is called on a thread.
    """

    path: str
    template: str
    read: Callable[[Visit], Mapping[str, Any]]

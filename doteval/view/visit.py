"""What a page knows when it is asked for, and what it gives."""

from __future__ import annotations

import logging
import shlex
import traceback
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from doteval.coordination.claims import is_left_by_all
from doteval.core.experiments import Counts, Experiment
from doteval.errors import DotEvalError, NotFoundError, UsageError
from doteval.store import Store
from doteval.store.url import DEFAULT_PATH
from doteval.view.calculations import Calculations
from doteval.view.parameters import Parameters, ParameterValue, link
from doteval.view.time_shares import work_clock

Value = TypeVar("Value")

logger = logging.getLogger("doteval.view")

# Seconds between two looks at a page on which something is being computed, on which something runs, and on which
# nothing does.
COMPUTING_SECONDS = 1
RUNNING_SECONDS = 2
IDLE_SECONDS = 15

UNEXPECTED_PAGE = "troubleshooting#unexpected-error"


@dataclass(frozen=True, slots=True)
class LabelForm:
    """What the form for a label needs; see `doteval.view.labelling`.

    token: fits the cookie of the visitor.
    person: the name under which labels are stored, empty if the visitor has to give one.
    is_known: whether a proxy has said who it is, so that nobody may give another name.
    visitor: the value of the visitor's cookie; is_new: whether it has to be set.
    """

    token: str
    person: str
    is_known: bool
    visitor: str
    is_new: bool


@dataclass(frozen=True, slots=True)
class PartProblem:
    """Why a part of a page is not there. `page` is the section of the documentation that says more."""

    message: str
    remedy: str | None
    page: str | None = None


@dataclass(slots=True)
class Visit:
    """One request for a page.

    store: its transactions end after a few seconds.
    path: that of the page, without a slash; "." for the first one.
    label_form: of the page of a row, if the view takes labels.
    live_seconds: how often the script looks at the page again, None for never; see `live`.
    waited: the seconds that it has waited for what is computed in the background, by `work_clock`.
    status: the status of the answer, for pages that show what is wrong with their parameters.
    problems: the parts of the page that could not be read or computed, by name; the rest of the page is shown.
    """

    store: Store
    calculations: Calculations
    parameters: Parameters
    path: str = "."
    label_form: LabelForm | None = None
    live_seconds: int | None = field(default=None, init=False)
    waited: float = field(default=0.0, init=False)
    status: int = field(default=200, init=False)
    problems: dict[str, PartProblem] = field(default_factory=dict, init=False)

    def here(self, **changes: ParameterValue) -> str:
        """A link to this page with other parameters; None leaves one out."""
        return self.same(self.path, **changes)

    def same(self, path: str, **changes: ParameterValue) -> str:
        """A link to another path with the parameters of this page; see `here`."""
        return link(path, **self.parameters.changed(changes))

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

    def compute(
        self,
        part: str,
        subject: Hashable,
        state: Hashable,
        function: Callable[[Store], Value],
        *,
        running: bool = False,
        waits: bool = True,
    ) -> Value | None:
        """What a function computes in the background, None until it is there; see `Calculations.get`.

        The script looks at the page again soon, to show it. If it fails, the part is among the `problems`.

        part: what the page shows of it.
        running: whether the state changes all the time, so that the page shows what was computed a while ago.
        waits: whether to wait a moment for it.
        """
        clock = work_clock(self.store)
        began = clock()
        value = self.attempt(
            part, lambda: self.calculations.get(subject, state, function, running=running, waits=waits)
        )
        self.waited += clock() - began
        if value is None and part not in self.problems:
            self._look_again(COMPUTING_SECONDS)
        return value

    def attempt(self, part: str, read: Callable[[], Value]) -> Value | None:
        """What a function reads for a part of the page; None if it fails, and then the part is among the `problems`."""
        try:
            return read()
        except DotEvalError as error:
            if isinstance(error, UsageError):
                self.status = 404 if isinstance(error, NotFoundError) else 400
            self.problems[part] = PartProblem(error.message, error.remedy, error.page)
        except Exception as error:  # noqa: BLE001 - one part that fails is no reason to show nothing
            self.problems[part] = PartProblem(unexpected(error), "Please report it with these words.", UNEXPECTED_PAGE)
        return None

    def is_abandoned(self, experiment: Experiment) -> bool:
        """Whether nobody runs the evaluations of an experiment that are running by their status."""
        return self.calculations.recent(("abandoned", experiment.id), lambda: is_left_by_all(self.store, experiment))

    def _look_again(self, seconds: int) -> None:
        self.live_seconds = min(seconds, self.live_seconds or seconds)


def unexpected(error: Exception) -> str:
    """A sentence about an error that nobody foresaw, which is logged, too.

    Its message may hold contents of rows, which do not belong into a log.
    """
    frame = traceback.extract_tb(error.__traceback__)[-1]
    said = f"the view did not expect this: {type(error).__name__} in {frame.filename}:{frame.lineno}, {frame.name}"
    logger.error("%s", said)
    return said


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

"""Every error that doteval raises on purpose.

::

    DotEvalError                        exit code
    ├── UsageError                      2   the command or the evaluation file needs a change
    │   ├── EvaluationFileError         2   a file is missing, cannot be imported, has no evaluation
    │   ├── ColumnError                 2   the column spec and the dataset or function disagree
    │   ├── DatasetError                2   the dataset is empty or cannot be read
    │   ├── UnstorableValueError        2   a value of a row has no JSON form
    │   ├── NotFoundError               2   no such experiment, evaluation or dataset
    │   └── ChangedError                2   dataset or code have changed since the experiment began
    ├── BrokerError                     3   the message broker cannot be reached or used
    ├── StoreError                      4   the result store cannot be reached or used
    │   ├── StoreReadOnlyError          4
    │   ├── StoreTimeoutError           4   a query took longer than its reader waits
    │   └── StoreVersionError           4   the schema is newer (or older) than this doteval
    ├── WorkerError                     5   a worker process cannot do its work
    │   └── CodeMismatchError           5   its files differ from the submitter's
    ├── BudgetError                     6   the budget of the experiment is used up, and rows are pending
    ├── NothingRanError                 7   no row of any evaluation has run
    ├── InvalidResultError              -   an eval function returned something other than a result
    ├── RowTimeoutError                 -   a row took longer than --row-timeout
    └── ResourceError                   -   a shared resource (client, model) cannot be set up

The last three concern one row or one resource: they are stored with the row and never end a command.
Exit code 1 is for thresholds that were missed, 130 for Ctrl-C, 143 for SIGTERM and 129 for SIGHUP.

The message of an error says what happened and where; its `remedy` says what to do next. Its `page` is the section of
docs/troubleshooting.md that says more, and commands name it.
"""

from __future__ import annotations

import traceback

__all__ = [
    "BrokerError",
    "BudgetError",
    "ChangedError",
    "CodeMismatchError",
    "ColumnError",
    "DatasetError",
    "DotEvalError",
    "EvaluationFileError",
    "InvalidResultError",
    "NotFoundError",
    "NothingRanError",
    "Outage",
    "ResourceError",
    "RowTimeoutError",
    "StoreError",
    "StoreReadOnlyError",
    "StoreTimeoutError",
    "StoreVersionError",
    "UnstorableValueError",
    "UsageError",
    "WorkerError",
]


# Frames shown of an error that caused one of doteval's, counted from where it was raised.
_FRAMES_SHOWN = 4


class DotEvalError(Exception):
    """The base of all errors of doteval.

    `exit_code` is the exit code of a command that ends with this error; `remedy` tells the user what to do next;
    `page` is the page of the documentation that says more, with its section: ``troubleshooting#missing-column``.
    `logged` is the message for logs. It has to be given if `message` quotes an exception of other code, whose text may
    hold secrets or contents of rows.

    >>> print(DotEvalError("there is no row 7", remedy="The last one is row 5."))
    there is no row 7
    The last one is row 5.
    """

    exit_code = 1
    page: str | None = None

    def __init__(
        self, message: str, *, remedy: str | None = None, logged: str | None = None, page: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        if page is not None:
            self.page = page
        self.logged = message if logged is None else logged
        self._quotes = logged is not None

    def say_once(self, where: str = "log") -> bool:  # noqa: ARG002 - for subclasses
        """Whether the caller should say this error, in the log or on the screen: once for all errors of one outage."""
        return True

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message

    def with_section(self) -> str:
        """The message, the remedy, and the command that shows the section of the documentation about the error.

        >>> error = DotEvalError("the disk is full", remedy="Make room.", page="troubleshooting#disk-full")
        >>> print(error.with_section())
        the disk is full
        Make room.
        More: doteval docs troubleshooting#disk-full
        """
        return f"{self}\nMore: doteval docs {self.page}" if self.page else str(self)

    def log_text(self) -> str:
        """What logs say of it: the message and the remedy, without what other code has said."""
        return self.logged if self._quotes else str(self)

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in place of a traceback, whose frames would be those of doteval.

        Below it are the last frames of the error in other code that caused it, if one has.
        """
        lines = f"{type(self).__name__}: {self}".splitlines()
        cause = self.__cause__
        if cause is None:
            return lines
        frames = traceback.format_exception(type(cause), cause, cause.__traceback__, limit=-_FRAMES_SHOWN, chain=False)
        return [*lines, "", *"".join(frames).splitlines()]


class UsageError(DotEvalError):
    """The command or the evaluation file needs a change."""

    exit_code = 2


class EvaluationFileError(UsageError):
    """An evaluation file is missing, cannot be imported, or holds no evaluation."""


class ColumnError(UsageError):
    """The column spec, the dataset and the eval function's parameters disagree."""

    page = "troubleshooting#missing-column"


class DatasetError(UsageError):
    """The dataset is empty, or cannot be read."""

    page = "troubleshooting#dataset-not-read"


class UnstorableValueError(UsageError):
    """A value has no JSON form, not even with doteval's tagged extensions."""

    page = "troubleshooting#value-not-stored"


class NotFoundError(UsageError):
    """No experiment, evaluation or dataset of that name."""


class ChangedError(UsageError):
    """The dataset or the code have changed since the experiment began."""

    page = "troubleshooting#changed-since"


class BrokerError(DotEvalError):
    """The message broker cannot be reached or used."""

    exit_code = 3


class Outage:
    """A time during which the result store cannot be used. Many threads notice it, and one of them says so.

    It is said once in the log and once on the screen: nobody may see the log of a command.

    >>> outage = Outage()
    >>> outage.say_once(), outage.say_once(), outage.say_once("screen")
    (True, False, True)
    """

    def __init__(self) -> None:
        # For each place one element: the right to say so there. list.pop is atomic.
        self._unsaid = {"log": [True], "screen": [True]}

    def say_once(self, where: str = "log") -> bool:
        """Whether the caller is the first that asks, and says there what is wrong."""
        try:
            return self._unsaid[where].pop()
        except IndexError:
            return False


class StoreError(DotEvalError):
    """The result store cannot be reached or used.

    outage: shared with other errors of this process, if the store was not usable in between.
    """

    exit_code = 4
    outage: Outage | None = None

    def say_once(self, where: str = "log") -> bool:
        return self.outage is None or self.outage.say_once(where)


class StoreReadOnlyError(StoreError):
    """The result store can be read but not written."""

    page = "troubleshooting#store-read-only"


class StoreTimeoutError(StoreError):
    """A query took longer than its reader waits for, and was ended."""


class StoreVersionError(StoreError):
    """The result store has another schema version than this doteval can use."""

    page = "troubleshooting#store-version"


class WorkerError(DotEvalError):
    """A worker process cannot do its work."""

    exit_code = 5


class CodeMismatchError(WorkerError):
    """The worker's evaluation files differ from the submitter's.

    `files` are the paths that differ.
    """

    page = "troubleshooting#files-differ"

    def __init__(self, message: str, *, remedy: str | None = None, files: tuple[str, ...] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.files = files


class BudgetError(DotEvalError):
    """The budget of the experiment is used up, and rows are pending."""

    exit_code = 6


class NothingRanError(DotEvalError):
    """No row of any evaluation has run: all of them were skipped, say."""

    exit_code = 7
    page = "troubleshooting#nothing-ran"


class InvalidResultError(DotEvalError):
    """An eval function returned something other than a `Result` or a `Score`."""


class RowTimeoutError(DotEvalError):
    """A row took longer than the row timeout."""


class ResourceError(DotEvalError):
    """A shared resource (a client, a model) cannot be set up or used."""

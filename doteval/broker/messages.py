"""The row task, the only message that doteval sends. It carries ids, and no contents of rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

TASK_NAME = "doteval.rows"

_UID = re.compile(r"[0-9a-zA-Z_-]{1,64}")
# The largest row index that SQLite and PostgreSQL store.
_LARGEST_INDEX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class RowTask:
    """Rows `first` to `last`, both included, of an evaluation. A worker runs those that are pending.

    >>> RowTask("uid", 0, 9).summary("capitals")
    'r0-9 capitals'
    """

    evaluation_uid: str
    first: int
    last: int

    @classmethod
    def from_arguments(cls, arguments: Any) -> RowTask:
        """The row task whose `arguments` came in a message.

        Raises ValueError if they are not those of a row task; it says why, without a word of them.

        >>> RowTask.from_arguments(["uid", 5, 2])
        Traceback (most recent call last):
        ...
        ValueError: its rows are no range
        """
        if not isinstance(arguments, list) or len(arguments) != 3:
            raise ValueError("its arguments are not those of a row task")
        uid, first, last = arguments
        if not isinstance(uid, str) or _UID.fullmatch(uid) is None:
            raise ValueError("it names no evaluation")
        if type(first) is not int or type(last) is not int or not 0 <= first <= last <= _LARGEST_INDEX:
            raise ValueError("its rows are no range")
        return cls(uid, first, last)

    def arguments(self) -> list[Any]:
        """The arguments of the Celery task."""
        return [self.evaluation_uid, self.first, self.last]

    def summary(self, experiment: str) -> str:
        """What Flower shows as the arguments. It cuts them after 40 characters, so the rows come first."""
        return f"r{self.first}-{self.last} {experiment}"

"""The row task, the only message that doteval sends. It carries ids, and no contents of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TASK_NAME = "doteval.rows"


@dataclass(frozen=True, slots=True)
class RowTask:
    """Rows `first` to `last`, both included, of an evaluation. A worker runs those that are pending.

    >>> RowTask("uid", 0, 9).summary("capitals")
    'r0-9 capitals'
    """

    evaluation_uid: str
    first: int
    last: int

    def arguments(self) -> list[Any]:
        """The arguments of the Celery task."""
        return [self.evaluation_uid, self.first, self.last]

    def summary(self, experiment: str) -> str:
        """What Flower shows as the arguments. It cuts them after 40 characters, so the rows come first."""
        return f"r{self.first}-{self.last} {experiment}"

"""The row task: the one message that doteval sends. It carries ids only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

TASK_NAME = "doteval.rows"


@dataclass(frozen=True, slots=True)
class RowTask:
    """Rows `first` to `last`, both included, of an evaluation; the worker runs those that are pending."""

    evaluation_uid: str
    first: int
    last: int

    def arguments(self) -> list[Any]:
        return [self.evaluation_uid, self.first, self.last]

    def summary(self, experiment: str) -> str:
        """What Flower shows of the arguments; it cuts after 40 characters, so the rows come first."""
        return f"r{self.first}-{self.last} {experiment}"

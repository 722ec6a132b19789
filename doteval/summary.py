"""What an evaluation came to: the metrics of its scores, with intervals. Pure functions over values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class ScoreColumn:
    """All values of one score: those of the rows that are done. `metrics` are names."""

    name: str
    metrics: tuple[str, ...]
    values: list[Any]

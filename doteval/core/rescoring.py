"""How the rows of a rescored evaluation are run: their calls are answered from the journals of earlier evaluations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class MissingCalls(StrEnum):
    """What becomes of a call whose reply is not recorded."""

    FAIL = "fail"
    """The row fails, and nothing is sent."""
    LIVE = "live"
    """It is sent."""


@dataclass(frozen=True, slots=True)
class Rescoring:
    """What a rescored evaluation replays. It is stored in its run configuration.

    experiment: the name that the experiment it is rescored from had then.
    sources: the uids of the evaluations whose calls are replayed: that one, the one which it was rescored from itself,
        and so on.

    >>> Rescoring.from_json(Rescoring("first", ("u1",)).to_json()).missing
    <MissingCalls.FAIL: 'fail'>
    """

    experiment: str
    sources: tuple[str, ...]
    missing: MissingCalls = MissingCalls.FAIL

    def to_json(self) -> dict[str, Any]:
        """The stored form: plain values."""
        return {"experiment": self.experiment, "sources": list(self.sources), "missing": self.missing.value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Rescoring:
        """The rescoring from its stored form."""
        return cls(stored["experiment"], tuple(stored["sources"]), MissingCalls(stored["missing"]))

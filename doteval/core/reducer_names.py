"""The names of reducers, which turn the samples of a row into one value (`doteval.metrics.reducers` computes it)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from doteval.errors import UsageError

_PLAIN = ("mean", "median", "mode", "max")
_COUNTING = ("at_least", "pass_at", "pass_hat")
REDUCERS = ", ".join((*_PLAIN, *(f"{name}_K" for name in _COUNTING)))
"""All names, for help and messages."""

_NAME = re.compile(r"([a-z_]{1,8}?)(?:_(\d{1,6}))?")


@dataclass(frozen=True, slots=True)
class ReducerName:
    """The name of a reducer in parts. `k` is the number at its end, 0 for those without."""

    kind: str
    k: int

    @classmethod
    def parse(cls, text: str) -> ReducerName:
        """The parts of a name.

        >>> ReducerName.parse("at_least_2")
        ReducerName(kind='at_least', k=2)

        Raises UsageError: there is no such reducer.
        """
        found = _NAME.fullmatch(text)
        kind, k = (found[1], int(found[2] or 0)) if found else ("", 0)
        if (kind in _PLAIN and found and found[2] is None) or (kind in _COUNTING and k > 0):
            return cls(kind, k)
        raise UsageError(f"there is no reducer {text!r}", remedy=f"The reducers are {REDUCERS}, with a number for K.")

    def __str__(self) -> str:
        return f"{self.kind}_{self.k}" if self.k else self.kind

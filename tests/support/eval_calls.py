"""Eval functions for tests of calls, and the policy without retries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from doteval.core.results import Outcome, Score
from doteval.runner.calls import CallPolicy

SCORE = Score("ok", True, ["accuracy"])
NEVER = CallPolicy()

Run = Callable[..., Outcome]


def raising(*errors: BaseException) -> Callable[[], Any]:
    """A function that raises these errors, one for each call, and then returns a score. It counts its calls."""
    left = list(errors)

    def function() -> Score:
        function.calls += 1  # type: ignore[attr-defined]
        if left:
            raise left.pop(0)
        return SCORE

    function.calls = 0  # type: ignore[attr-defined]
    return function

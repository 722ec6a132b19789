"""Begins no further row of an evaluation that another process has taken over."""

from __future__ import annotations

from collections.abc import Callable

from doteval.core.liveness import DEAD_AFTER_SECONDS
from doteval.errors import DotEvalError
from doteval.runner.admission import AdmissionCheck
from doteval.store import WorkerState


class TakenOverError(DotEvalError):
    """Another process has taken the rows over, since this one was silent for so long that it counted as dead."""


class ClaimGuard:
    """Lets calls begin while this process holds the rows of its evaluation, and `further` admits them.

    An `AdmissionCheck`.

    taken_by: returns the process that has taken the rows over, None if none has
    """

    def __init__(self, taken_by: Callable[[], WorkerState | None], further: AdmissionCheck) -> None:
        self._taken_by = taken_by
        self._further = further

    def admits_now(self) -> bool:
        """Whether a call may begin without asking anybody. Never waits."""
        return self._taken_by() is None and self._further.admits_now()

    def refuses_now(self) -> bool:
        """Whether it is already known that no further call may begin. Never waits."""
        return self._taken_by() is not None or self._further.refuses_now()

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may."""
        other = self._taken_by()
        if other is None:
            return self._further.refusal()
        who = f"{other.info.service} (process {other.info.pid} on {other.info.hostname})"
        return TakenOverError(
            f"{who} has taken over the rows, since this process stood still for more than {DEAD_AFTER_SECONDS:g} s",
            remedy="What this process has computed is stored. To follow the rest, run the same command again.",
        )

"""Asks a check, such as an experiment's budget, before each call, without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

# Threads that ask checks on behalf of the event loop. A few are enough: one answer serves all calls that wait.
_CHECK_THREADS = 4


class AdmissionCheck(Protocol):
    """Decides before each call whether it may begin."""

    def admits_now(self) -> bool:
        """Whether a call may begin without asking anybody. Never waits."""

    def refuses_now(self) -> bool:
        """Whether it is already known that no further call may begin. Never waits."""

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may. May wait; raises nothing."""


class Permits(Protocol):
    """Limits how many rows begin, in all processes."""

    def take(self, rows: int, wake: Callable[[], None]) -> bool:
        """Take permits for so many rows. If there are too few, `wake` is called once there may be more. Never waits."""


class Guarded(Protocol):
    """What admission needs to know of an assignment."""

    @property
    def check(self) -> AdmissionCheck | None: ...

    @property
    def withdrawn(self) -> bool: ...


class Admission:
    """Decides whether calls begin.

    `withdraw`: called with an assignment that its check refuses, and with the reason.
    """

    def __init__(self, withdraw: Callable[[Any, BaseException], None]) -> None:
        self._withdraw = withdraw
        self._threads: ThreadPoolExecutor | None = None

    def admits(self, assignment: Guarded) -> bool:
        """Whether a call may begin; may wait."""
        refusal = None if assignment.check is None or assignment.withdrawn else assignment.check.refusal()
        if refusal is not None:
            self._withdraw(assignment, refusal)
        return not assignment.withdrawn

    def has_refused(self, assignment: Guarded) -> bool:
        """Whether it is already known that no call may begin; withdraws the assignment if so. Never waits."""
        check = assignment.check
        return check is not None and not assignment.withdrawn and check.refuses_now() and not self.admits(assignment)

    async def admits_on_loop(self, assignment: Guarded) -> bool:
        """`admits` for a call on the event loop: the check waits in a thread. Always called on the same loop."""
        if assignment.check is None or assignment.withdrawn or assignment.check.admits_now():
            return not assignment.withdrawn
        if self._threads is None:
            self._threads = ThreadPoolExecutor(_CHECK_THREADS, thread_name_prefix="doteval-admission")
        return await asyncio.get_running_loop().run_in_executor(self._threads, self.admits, assignment)

    def close(self) -> None:
        """End the threads without waiting for pending answers."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._threads = None

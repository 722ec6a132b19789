"""Admission: a gate is asked before each call, without holding up the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

# Threads that ask gates on behalf of the loop: an answer to one is news for all.
_ASKERS = 4


class Gate(Protocol):
    """Says before each call whether it may begin."""

    def is_open(self) -> bool:
        """Whether a call may begin without further asking. Never waits."""

    def is_shut(self) -> bool:
        """Whether no call may begin any more. Never waits."""

    def refusal(self) -> BaseException | None:
        """Why no further call may begin, None if one may. May wait; raises nothing."""


class Guarded(Protocol):
    """What admission needs to know of an assignment."""

    @property
    def gate(self) -> Gate | None: ...

    @property
    def withdrawn(self) -> bool: ...


class Admission:
    """Lets calls begin. An assignment that its gate refuses is handed to `withdraw`, with the reason."""

    def __init__(self, withdraw: Callable[[Any, BaseException], None]) -> None:
        self._withdraw = withdraw
        self._askers: ThreadPoolExecutor | None = None

    def admits(self, assignment: Guarded) -> bool:
        """Whether a call may begin; may wait."""
        refusal = None if assignment.gate is None or assignment.withdrawn else assignment.gate.refusal()
        if refusal is not None:
            self._withdraw(assignment, refusal)
        return not assignment.withdrawn

    def has_refused(self, assignment: Guarded) -> bool:
        """Whether it is known that no call may begin. Never waits."""
        gate = assignment.gate
        return gate is not None and not assignment.withdrawn and gate.is_shut() and not self.admits(assignment)

    async def admits_on_loop(self, assignment: Guarded) -> bool:
        """The same for a call on the event loop, which goes on meanwhile. Always called on the same loop."""
        if assignment.gate is None or assignment.withdrawn or assignment.gate.is_open():
            return not assignment.withdrawn
        if self._askers is None:
            self._askers = ThreadPoolExecutor(_ASKERS, thread_name_prefix="doteval-gate")
        return await asyncio.get_running_loop().run_in_executor(self._askers, self.admits, assignment)

    def close(self) -> None:
        """End the threads, without waiting for answers that nobody wants any more."""
        if self._askers is not None:
            self._askers.shutdown(wait=False, cancel_futures=True)
            self._askers = None

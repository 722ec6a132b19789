"""Executors run single calls: inline, in a pool of threads, or on the event loop.

`run_inline` returns the outcomes of a call. The executors pass them to `complete`, on the thread on which the call
ended: an Outcome, a list of them for a batch, the CancelledError of a row that cancelled its own task, or None if
the call was not admitted, dropped or cancelled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from doteval.core.results import Outcome
from doteval.runner.admission import Admission
from doteval.runner.async_calls import AsyncCalls
from doteval.runner.calls import CallPolicy, call, call_async, call_batch, call_batch_async, failed_before_call
from doteval.runner.event_loop import LoopThread
from doteval.runner.inflight_calls import InflightCall
from doteval.runner.loop_watchdog import LoopWatchdog
from doteval.runner.row_threads import RowThreads
from doteval.runner.thread_loops import ThreadLoops

Ended = Outcome | list[Outcome] | BaseException | None
Complete = Callable[[InflightCall, Ended], None]


class Executor(Protocol):
    """Runs calls that may overlap."""

    def submit(
        self, inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> None:
        """Begin a call, if admission allows it then."""

    def cancel(self) -> None:
        """Cancel the calls that run, if the executor can."""

    def close(self) -> None:
        """End the executor's threads. Waits for the calls that run in them."""

    def abandon(self) -> None:
        """In place of `close`: leave calls behind that do not end."""


def run_inline(
    admission: Admission,
    inflight: InflightCall,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    policy: CallPolicy,
) -> list[Outcome] | None:
    """Run a call on this thread, None if it is not admitted. Raises only KeyboardInterrupt and pytest.exit."""
    if not admission.admits(inflight.assignment):
        return None
    if policy.timeout is not None:
        inflight.entry.called(policy.timeout)
    try:
        if inflight.assignment.item.spec.batch_size is None:
            outcomes = [call(function, arguments, policy)]
        else:
            outcomes = call_batch(function, arguments, policy, len(inflight.rows))
    except BaseException:
        inflight.tear_down()
        raise
    if policy.timeout is not None:
        inflight.entry.returned()
    return outcomes


class ThreadExecutor:
    """Runs sync calls in a pool of threads."""

    def __init__(self, admission: Admission, threads: int, complete: Complete) -> None:
        self._admission = admission
        self._complete = complete
        self._threads = RowThreads(threads)
        self._loops = ThreadLoops()

    def submit(
        self, inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> None:
        self._threads.submit(functools.partial(self._run, inflight, function, arguments, policy))

    def cancel(self) -> None:
        """Nothing to do: calls in threads run to their end."""

    def close(self) -> None:
        self._threads.close()
        self._loops.close()

    def abandon(self) -> None:
        """Nothing to do: the threads do not keep the process from ending."""

    def _run(
        self, inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> None:
        ended: Ended = None
        self._loops.set_loop()
        try:
            if self._admission.admits(inflight.assignment):
                if policy.timeout is not None:
                    inflight.entry.called(policy.timeout)
                if inflight.assignment.item.spec.batch_size is None:
                    ended = call(function, arguments, policy)
                else:
                    ended = call_batch(function, arguments, policy, len(inflight.rows))
        except BaseException as error:  # noqa: BLE001 - Ctrl-C reaches only the main thread; here it is the row's own
            ended = [failed_before_call(error, "the row raised")] * len(inflight.rows)
        if policy.timeout is not None:
            inflight.entry.returned()
        self._complete(inflight, ended)


class LoopExecutor:
    """Runs async calls on the event loop, under a watchdog if they have a timeout."""

    def __init__(self, admission: Admission, loop: LoopThread, complete: Complete) -> None:
        self._admission = admission
        self._loop = loop
        self._complete = complete
        self._pool = AsyncCalls(loop)
        self._watchdog: LoopWatchdog | None = None

    def submit(
        self, inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> None:
        if policy.timeout is not None and self._watchdog is None:
            self._watchdog = LoopWatchdog(self._loop, policy.timeout)
        self._pool.submit(
            functools.partial(self._run, inflight, function, arguments, policy),
            functools.partial(self._complete, inflight),
        )

    def cancel(self) -> None:
        self._pool.cancel()

    def close(self) -> None:
        if self._watchdog is not None:
            self._watchdog.close()

    def abandon(self) -> None:
        self.close()
        self._loop.abandon()

    async def _run(
        self, inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> Ended:
        if not await self._admission.admits_on_loop(inflight.assignment):
            return None
        limit = policy.timeout
        if limit is None:
            return await self._call(inflight, function, arguments, policy)
        # The watchdog ends a call that never awaits, and needs up to this long to notice it.
        inflight.entry.called(limit + LoopWatchdog.latest(limit))
        # If the loop still runs at the deadline, asyncio ends the call, and nobody else has to.
        timer = self._loop.loop.call_later(limit, inflight.entry.returned)
        try:
            return await self._call(inflight, function, arguments, policy)
        finally:
            timer.cancel()
            inflight.entry.returned()

    @staticmethod
    def _call(
        inflight: InflightCall, function: Callable[..., Any], arguments: Mapping[str, Any], policy: CallPolicy
    ) -> Coroutine[Any, Any, Ended]:
        if inflight.assignment.item.spec.batch_size is None:
            return call_async(function, arguments, policy)
        return call_batch_async(function, arguments, policy, len(inflight.rows))

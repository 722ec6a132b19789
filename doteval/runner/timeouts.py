"""Interrupts sync calls that exceed their timeout, so that the other rows go on.

On the main thread an alarm signal interrupts everything, including waits for the network. On other threads an
exception is set in the thread, which Python raises when the thread next executes Python code: a call that is stuck in C
code ends late.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from doteval.core.error_leaves import leaves
from doteval.errors import RowTimeoutError

Value = TypeVar("Value")

# A row that swallows the interruption (`except:`) is interrupted again after this many seconds.
_AGAIN_SECONDS = 1.0


# A BaseException, since it must get past every `except Exception` of the row.
class Expired(BaseException):
    """Raised inside a row that has reached its timeout."""


def within(seconds: float | None, function: Callable[[], Value], *, what: str = "the row") -> Value:
    """Call a function and interrupt it after `seconds` (None: never). `what` names it in the error.

    Raises RowTimeoutError if it took longer, and what the function raises.

    >>> within(1.0, lambda: 42)
    42
    """
    if seconds is None:
        return function()
    try:
        return _with_alarm(seconds, function) if _has_alarm() else _with_watchdog(seconds, function)
    except BaseException as error:
        if not is_expiry(error):
            raise
        raise timed_out(seconds, what) from error.__context__


def is_expiry(error: BaseException) -> bool:
    """Whether a call was interrupted. If the interruption hit a task of a TaskGroup, it comes in a group."""
    return any(isinstance(leaf, Expired) for leaf in leaves(error))


def interrupt(thread_id: int) -> None:
    """Raise `Expired` in another thread, as soon as it executes Python code."""
    _raise_in(thread_id, Expired)


def timed_out(seconds: float, what: str = "the row") -> RowTimeoutError:
    """The error of a call that took longer than `seconds`."""
    return RowTimeoutError(f"{what} took longer than {seconds:g} s")


def _has_alarm() -> bool:
    # Another library may use the alarm: pytest-timeout sets one for each test.
    return (
        threading.current_thread() is threading.main_thread()
        and hasattr(signal, "setitimer")
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )


def _with_alarm(seconds: float, function: Callable[[], Value]) -> Value:
    over = False

    def expire(_number: int, _frame: FrameType | None) -> None:
        if not over:
            raise Expired

    before = signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_SECONDS)
        try:
            return function()
        finally:
            over = True
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _with_watchdog(seconds: float, function: Callable[[], Value]) -> Value:
    thread = threading.get_ident()
    lock = threading.Lock()
    over = threading.Event()

    def watch() -> None:
        pause = seconds
        while not over.wait(pause):
            with lock:
                if not over.is_set():
                    _raise_in(thread, Expired)
            pause = _AGAIN_SECONDS

    watchdog = threading.Thread(target=watch, name="doteval-timeout", daemon=True)
    try:
        try:
            # With a very short timeout, `Expired` may be raised in here already.
            watchdog.start()
            return function()
        finally:
            _call_off(thread, lock, over)
    except Expired:
        # It may have been raised on the way into the call above; the next one comes in a second at the earliest. A
        # watchdog that is not called off would interrupt what this thread does next, and a later thread of its id.
        _call_off(thread, lock, over)
        raise


def _call_off(thread: int, lock: threading.Lock, over: threading.Event) -> None:
    """End the watchdog of this thread."""
    with lock:
        over.set()
        # An exception that is set but not raised yet would interrupt what comes next.
        _raise_in(thread, None)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind))

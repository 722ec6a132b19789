"""Deadlines of sync calls: a row that takes too long is interrupted, and the others go on.

On the main thread an alarm signal interrupts whatever happens, waiting for the network included. Elsewhere
(threads, worker processes) an exception is set in the thread, which Python raises as soon as the thread
executes Python code again: a call that is stuck in C code ends late.
"""

from __future__ import annotations

import ctypes
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

from doteval.errors import RowTimeoutError

Value = TypeVar("Value")

# A row that swallows the interruption (`except:`) is interrupted again after so many seconds.
_AGAIN_SECONDS = 1.0


# Not an Exception: it must get past every `except Exception` of the row.
class Expired(BaseException):
    """Raised in the middle of a row whose time is over."""


def within(seconds: float | None, function: Callable[[], Value], *, what: str = "the row") -> Value:
    """Call a function, for at most `seconds` (None: as long as it takes). `what` it does, the error says.

    Raises RowTimeoutError if it took longer, else what the function raises.
    """
    if seconds is None:
        return function()
    try:
        return _with_alarm(seconds, function) if _has_alarm() else _with_watchdog(seconds, function)
    except Expired as expired:
        raise timed_out(seconds, what) from expired.__context__


def interrupt(thread_id: int) -> None:
    """Have `Expired` raised in a thread, as soon as it executes Python code."""
    _raise_in(thread_id, Expired)


def timed_out(seconds: float, what: str = "the row") -> RowTimeoutError:
    return RowTimeoutError(f"{what} took longer than {seconds:g} s")


def _has_alarm() -> bool:
    # The alarm may be somebody else's: pytest-timeout has one for each test.
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

    watchdog = threading.Thread(target=watch, name="doteval-deadline", daemon=True)
    try:
        try:
            # Time may be over before the thread has told that it began: it hits in here then.
            watchdog.start()
            return function()
        finally:
            _call_off(thread, lock, over)
    except Expired:
        # It may have hit on the way into the call above; the next comes in a second at the earliest. A watch that
        # nobody calls off would interrupt whatever this thread does next, and the thread that gets its id after it.
        _call_off(thread, lock, over)
        raise


def _call_off(thread: int, lock: threading.Lock, over: threading.Event) -> None:
    """End the watch over this thread."""
    with lock:
        over.set()
        # One that was set and not raised yet would hit whatever comes next.
        _raise_in(thread, None)


def _raise_in(thread: int, kind: type[BaseException] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if kind is None else ctypes.py_object(kind))

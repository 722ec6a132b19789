"""Has the signals that end a command end it in order: SIGINT of Ctrl-C, SIGTERM, and SIGHUP of a closed terminal."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType, TracebackType
from typing import Any

from doteval.core import clocks

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# `timeout` sends its signal twice, systemd SIGHUP after SIGTERM, and a closed terminal SIGHUP from the kernel and from
# the shell. That is one wish to end.
_ONE_WISH_SECONDS = 0.3


def rows_finish_first(seconds: float) -> str:
    """What a command says that waits after the first signal for rows in flight, for so many seconds at most.

    >>> rows_finish_first(600)
    'rows in flight finish first, for at most 600 s; a second signal, such as Ctrl-C, ends them at once'
    """
    return f"rows in flight finish first, for at most {seconds:g} s; a second signal, such as Ctrl-C, ends them at once"


class Stopped(KeyboardInterrupt):
    """A signal has asked this process to end. It is a KeyboardInterrupt, so that it takes the same way as Ctrl-C."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(self.name)

    @property
    def name(self) -> str:
        return signal.Signals(self.number).name


def exit_code(stopped: BaseException | None) -> int:
    """The exit code of a command that was stopped, as shells know it: 128 and the number of the signal.

    >>> exit_code(Stopped(signal.SIGTERM)), exit_code(KeyboardInterrupt())
    (143, 130)
    """
    return exit_code_of(stopped.number if isinstance(stopped, Stopped) else signal.SIGINT)


def exit_code_of(number: int) -> int:
    """The exit code of a command that was stopped by the signal `number`."""
    return 128 + number


class StopSignals:
    """Has signals raise `Stopped` on the main thread during a block, each one anew: a second one interrupts clean-up.

    Only signals with their default handler are taken: those that `nohup` or a shell has this process ignore stay
    ignored, and those that a program around doteval handles stay with it. On another thread than the main one, where
    Python sets no handlers, nothing is taken.

    on_first: called at the first signal, in place of raising
    numbers: the signals
    clock: returns seconds that never decrease
    """

    def __init__(
        self,
        on_first: Callable[[], None] | None = None,
        *,
        numbers: Sequence[signal.Signals] = SIGNALS,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        # The number of the first signal that came.
        self.first: int | None = None
        self._on_first = on_first
        self._numbers = numbers
        self._clock = clock
        self._last: float | None = None
        self._before: dict[int, Any] = {}

    def install(self) -> StopSignals:
        """Take the signals, until `restore`. Returns this object."""
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers:
                before = signal.getsignal(number)
                if before in (signal.SIG_DFL, signal.default_int_handler) or _is_ours(before):
                    self._before[number] = before
                    signal.signal(number, self._arrived)
        return self

    def __enter__(self) -> StopSignals:
        return self.install()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.restore()

    def restore(self) -> None:
        """Give the signals back to the handlers that they had before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _arrived(self, number: int, _: FrameType | None) -> None:
        now = self._clock()
        repeated = self._last is not None and now - self._last < _ONE_WISH_SECONDS
        self._last = now
        if repeated:
            return
        is_first = self.first is None
        if is_first:
            self.first = number
        if is_first and self._on_first is not None:
            self._on_first()
        else:
            raise Stopped(number)


def _is_ours(handler: object) -> bool:
    return isinstance(getattr(handler, "__self__", None), StopSignals)


_masks = threading.local()


def _block() -> None:
    """Have signals wait until a forked process has its own handlers: one that came before would be lost there."""
    is_needed = any(_is_ours(signal.getsignal(number)) for number in SIGNALS)
    _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS) if is_needed else None


def _unblock() -> None:
    if _masks.before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _forget() -> None:
    """Give a process that evaluation files have forked the default handlers, as without doteval.

    `multiprocessing` ends its processes with SIGTERM, and one that runs C code would not notice a handler of Python.
    """
    for number in SIGNALS:
        if _is_ours(signal.getsignal(number)):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _unblock()


os.register_at_fork(before=_block, after_in_parent=_unblock, after_in_child=_forget)

"""Hears the signals that end a worker process, also while its main thread runs a row."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Mapping
from types import FrameType


class ShutdownSignals:
    """Calls an action for each signal that arrives, on a thread of its own.

    Python runs signal handlers on the main thread and between two bytecodes. There, a row that waits in C code would
    hold a handler up until it returns. But the number of a signal is written to a pipe at once
    (`signal.set_wakeup_fd`), which a thread reads here. The actions run one at a time and may block.

    actions: by signal number
    """

    def __init__(self, actions: Mapping[int, Callable[[], None]]) -> None:
        self._actions = actions
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._thread = threading.Thread(target=self._act, name="doteval-signals", daemon=True)
        # The signals that a thread had blocked before it began to fork.
        self._blocked = threading.local()

    def install(self) -> None:
        """Begin to listen, for as long as this process lives. Belongs to the main thread."""
        for number in self._actions:
            signal.signal(number, self._on_main_thread)
        signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._forget)
        self._thread.start()

    def _act(self) -> None:
        while True:
            for number in os.read(self._reading, 64):
                # Other signals are written too, such as a row's own alarm.
                action = self._actions.get(number)
                if action is not None:
                    action()

    def _on_main_thread(self, number: int, _: FrameType | None) -> None:
        """Pass a signal on that the pipe did not get, because an event loop of a row has taken its place."""
        taken_by = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        if taken_by == self._writing:
            return
        if taken_by != -1:
            signal.set_wakeup_fd(taken_by)
        os.write(self._writing, bytes([number]))

    def _hold(self) -> None:
        """Keep signals from a process that a row forks, until it has handlers of its own."""
        self._blocked.before = signal.pthread_sigmask(signal.SIG_BLOCK, self._actions)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked.before)

    def _forget(self) -> None:
        """Give a process that a row has forked the handlers that it would have in plain pytest.

        With those of this process it could not be terminated, and would end this process through the shared pipe.
        """
        signal.set_wakeup_fd(-1)
        for number in self._actions:
            if signal.getsignal(number) == self._on_main_thread:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        self._release()

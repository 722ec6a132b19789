"""The fork server: a process that imports what worker processes need, once, and then forks them.

Imports are most of what a worker process does before its first row. The fork server makes them for all worker processes
of a command, while the command itself does other things, and the worker processes share the memory. It imports no file
of a user: each worker process reads the evaluation files after it was forked. `doteval.worker.fork_server_main` is the
code that runs in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from typing import IO, Any, Final, Protocol

# What `returncode` is of a process that outlived its fork_server: no exit code is this.
UNKNOWN: Final = 256
_MODULE = "doteval.worker.fork_server_main"
# Between two looks at whether a process has ended: its end may have been told to another thread, or by nobody.
_LOOK_SECONDS = 0.05


class Process(Protocol):
    """What is asked of a child process: a part of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class ForkServerGoneError(ConnectionError):
    """The fork server has ended, and starts nothing any more."""


class ForkServer:
    """Forks worker processes. It begins to import at once, and ends with this process, however that ends."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for the command only.
                start_new_session=True,
            )
        self._channel = Connection(ours.detach())
        # Several threads ask for the ends of processes.
        self._lock = threading.RLock()
        self._ready = self._gone = False
        self._answers: deque[list[Any]] = deque()
        # By process id: those that were started here and whose end has not been told.
        self._running: dict[int, ForkedProcess] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self, timeout: float) -> bool:
        """Whether it has imported everything, within so many seconds. Raises ForkServerGoneError."""
        with self._lock:
            if not self._ready:
                self._receive(timeout)
            if self._gone:
                raise ForkServerGoneError("the fork server has ended")
            return self._ready

    def launch(self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None) -> ForkedProcess:
        """Start what is after ``python -m``, with variables added to the environment, in a session of its own.

        It prints into `output`, None for where this process does. Raises ForkServerGoneError, and OSError if the system
        has no room for another process.
        """
        with self._lock:
            try:
                self._channel.send_bytes(json.dumps([list(command), dict(environment), output is not None]).encode())
                if output is not None:
                    send_handle(self._channel, output.fileno(), self._process.pid)
            except OSError:
                self._gone = True
            while not self._answers and not self._gone:
                self._receive(None)
            if not self._answers:
                raise ForkServerGoneError("the fork server has ended")
            what, number = self._answers.popleft()
            if what == "failed":
                raise OSError(number, os.strerror(number))
            # Under the lock: its end may be told next.
            forked = self._running[number] = ForkedProcess(self, number)
        return forked

    def listen(self, timeout: float) -> bool:
        """Wait up to so many seconds for what it says next, and take in all that it has said. False: it is gone.

        Nothing holds other threads up meanwhile; what one of them takes in, this one does not notice before its time.
        """
        # The channel may be closed just now.
        with contextlib.suppress(OSError):
            if timeout and not self._gone:
                wait([self._channel], timeout)
        with self._lock:
            while self._receive(0.0):
                pass
            return not self._gone

    def close(self) -> None:
        """End it. What it has started notices, and leaves."""
        self._channel.close()
        # It may be in the middle of its imports.
        self._process.kill()
        self._process.wait()

    def _receive(self, timeout: float | None) -> bool:
        """Read the next message of the fork server; wait at most `timeout` seconds, None for no limit."""
        try:
            if self._gone or not self._channel.poll(timeout):
                return False
            what, *said = json.loads(self._channel.recv_bytes())
        except (EOFError, OSError):
            self._gone = True
            return False
        if what == "ended":
            pid, code = said
            forked = self._running.pop(pid, None)
            # None of one whose start was interrupted before it was known.
            if forked is not None:
                forked.returncode = code
        elif what == "ready":
            self._ready = True
        else:
            self._answers.append([what, *said])
        return True


class ForkedProcess:
    """A process that a fork server has started."""

    def __init__(self, fork_server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fork_server = fork_server

    def poll(self) -> int | None:
        """What it exited with, negative if by a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(_LOOK_SECONDS)) is None:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            # It may end just now.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def _look(self, timeout: float) -> int | None:
        """How it ended, if it has within so many seconds."""
        if self.returncode is None and not self._fork_server.listen(timeout) and self.returncode is None:
            if _has_ended(self.pid):
                self.returncode = UNKNOWN
            else:
                time.sleep(timeout)
        return self.returncode


@contextlib.contextmanager
def start_fork_server(environment: Mapping[str, str] | None = None) -> Iterator[ForkServer | None]:
    """A fork server for the length of a block; None where processes cannot be watched as it does, or none be had."""
    fork_server = None
    if hasattr(os, "pidfd_open"):
        # A kernel that lacks it, or no room for another process: of that, whoever starts worker processes will speak.
        with contextlib.suppress(OSError):
            os.close(os.pidfd_open(os.getpid()))
            fork_server = ForkServer(environment)
    try:
        yield fork_server
    finally:
        if fork_server is not None:
            fork_server.close()


def _has_ended(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        # Also of one that nobody has waited for yet.
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)

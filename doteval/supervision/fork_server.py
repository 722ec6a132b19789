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

from doteval.core import clocks

# The `returncode` of a process that outlived its fork server. No real exit code has this value.
UNKNOWN: Final = 256
_MODULE = "doteval.worker.fork_server_main"
# Between two checks whether a process has ended, in case another thread received the message or none was sent.
_CHECK_SECONDS = 0.05


class Process(Protocol):
    """A child process: the part of `subprocess.Popen` that a supervisor uses."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


class ForkServerGoneError(ConnectionError):
    """The fork server has ended and starts no further process."""


class ForkServer:
    """Forks worker processes. Safe to use from several threads.

    It starts its imports at once, and ends with this process, however that ends.

    environment: variables to add to those of this process.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", _MODULE, str(theirs.fileno())],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is meant for the command only.
                start_new_session=True,
            )
        self._channel = Connection(ours.detach())
        # Several threads wait for the ends of processes.
        self._lock = threading.RLock()
        self._gone = False
        # How many times it has still to say that its imports are done.
        self._importing = 1
        self._answers: deque[list[Any]] = deque()
        # By pid: the processes that were started here and whose end has not been reported.
        self._running: dict[int, ForkedProcess] = {}

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_ready(self, timeout: float) -> bool:
        """Whether the imports are done; waits up to `timeout` seconds. Raises ForkServerGoneError."""
        with self._lock:
            if self._importing:
                self._receive(timeout)
            if self._gone:
                raise ForkServerGoneError("the fork server has ended")
            return not self._importing

    def import_too(self, modules: Sequence[str]) -> None:
        """Import more modules before the next process is forked, which then has them already.

        It ends if they start threads, since it cannot fork then.
        """
        with self._lock:
            try:
                self._channel.send_bytes(json.dumps({"import": list(modules)}).encode())
            except OSError:
                self._gone = True
            else:
                self._importing += 1

    def fork(self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None) -> ForkedProcess:
        """Start a process in a session of its own.

        command: the module and its arguments, as after ``python -m``.
        environment: variables to add.
        output: the file that it prints to, None for the output of this process.

        Raises ForkServerGoneError: if the fork server has ended.
        Raises OSError: if the system cannot start another process.
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
            # Still under the lock: the next message may report its end.
            forked = self._running[number] = ForkedProcess(self, number)
        return forked

    def listen(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for a message, and read all that have come. Returns False if it has ended.

        Other threads are not blocked meanwhile. If one of them reads the message, this call waits for its full time.
        """
        # Another thread may close the channel.
        with contextlib.suppress(OSError):
            if timeout and not self._gone:
                wait([self._channel], timeout)
        with self._lock:
            while self._receive(0.0):
                pass
            return not self._gone

    def close(self) -> None:
        """End the fork server. The processes that it has forked notice, and leave."""
        self._channel.close()
        # It does not answer while it imports.
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
            # None if its start was interrupted before its pid was known.
            if forked is not None:
                forked.returncode = code
        elif what == "ready":
            self._importing -= 1
        else:
            self._answers.append([what, *said])
        return True


class ForkedProcess:
    """A process that a fork server has forked."""

    def __init__(self, fork_server: ForkServer, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._fork_server = fork_server

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._check(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process. Raises subprocess.TimeoutExpired."""
        deadline = None if timeout is None else clocks.monotonic() + timeout
        while (code := self._check(_CHECK_SECONDS)) is None:
            if deadline is not None and clocks.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            # It may have ended since.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        """Kill the process."""
        self.send_signal(signal.SIGKILL)

    def _check(self, timeout: float) -> int | None:
        """The exit code if the process ends within `timeout` seconds, None otherwise."""
        if self.returncode is None and not self._fork_server.listen(timeout) and self.returncode is None:
            if _has_ended(self.pid):
                self.returncode = UNKNOWN
            else:
                time.sleep(timeout)
        return self.returncode


@contextlib.contextmanager
def start_fork_server(environment: Mapping[str, str] | None = None) -> Iterator[ForkServer | None]:
    """A fork server for the length of a block; None if the system has no pidfds or cannot start it."""
    fork_server = None
    if hasattr(os, "pidfd_open"):
        # The kernel may lack pidfds. If no process can be started at all, the supervisor reports it.
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
        # A pidfd is readable also for a zombie.
        return bool(select.select([descriptor], [], [], 0)[0])
    finally:
        os.close(descriptor)

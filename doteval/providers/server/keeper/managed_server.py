"""The server as a process: its start, its health, its output and its end."""

from __future__ import annotations

import contextlib
import http.client
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from .output_log import OutputLog
from .ports import reserve_port
from .processes import die_with

_HEALTH_TIMEOUT_SECONDS = 2.0
# How long the keeper waits at most in one call of its loop.
_LONGEST_WAIT_SECONDS = 5.0


class StartError(Exception):
    """The server's command cannot be run; the message says why."""


class ManagedServer:
    """One server, which may be started several times, always on the same port.

    `settings` are those of `doteval.providers.server.directory.ServerSettings`. The server's output is read
    whenever `selector` reports that there is some: the registered data is the function to call.
    """

    def __init__(self, settings: dict[str, Any], selector: selectors.BaseSelector) -> None:
        self._settings = settings
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._reservation = -1
        self.output = OutputLog()
        self.port = 0
        # The process group, which has the id of the server's process; 0 while there is no server.
        self.pid = 0

    @property
    def is_started(self) -> bool:
        """Whether there is a process, running or exited, that has not been reaped."""
        return self._process is not None

    @property
    def health_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self._settings['health']}"

    def start(self) -> None:
        """Run the server's command in a new process group. Raises StartError if that is impossible."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOTEVAL_")}
        try:
            if not self.port:
                self.port, self._reservation = reserve_port(int(self._settings["first_port"]))
            self._process = subprocess.Popen(
                [word.replace("{port}", str(self.port)) for word in self._settings["command"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._settings["directory"],
                env={**inherited, **self._settings["environment"]},
                start_new_session=True,
                # Safe because the keeper has one thread.
                preexec_fn=die_with(os.getpid()) if sys.platform == "linux" else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
            if isinstance(error, OSError) and error.filename and error.strerror:
                reason = f"{error.filename}: {error.strerror}"
            raise StartError(reason) from error
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector.register(self._process.stdout, selectors.EVENT_READ, self._read_output)
        self.pid = self._process.pid

    def is_healthy(self) -> bool:
        """Whether the health URL answers with a status of 200 to 299 within 2 seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_HEALTH_TIMEOUT_SECONDS)
        try:
            connection.request("GET", self._settings["health"])
            healthy = 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            # The server does not listen yet, or does not answer in HTTP.
            return False
        finally:
            connection.close()
        return healthy and not self.has_exited()

    def has_exited(self) -> bool:
        # The process is not reaped here: until it is, its id cannot become that of another process group.
        assert self._process is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def reap(self) -> int:
        """Kill what is left of the server's process group and read the rest of its output. Returns its exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
            os.killpg(self.pid, signal.SIGKILL)
        code = self._process.wait()
        self._read_output()
        self._stop_reading()
        self._process.stdout.close()
        self._process, self.pid = None, 0
        return code

    def stop(self, wait: Callable[[float], None]) -> None:
        """Send SIGTERM to the process group, and SIGKILL if the server is still there after `stop_timeout` seconds.

        `wait` is called with a number of seconds and may return earlier: it keeps serving users meanwhile.
        """
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGTERM)
        deadline = time.monotonic() + float(self._settings["stop_timeout"])
        while not self.has_exited() and time.monotonic() < deadline:
            wait(min(_LONGEST_WAIT_SECONDS, max(0.0, deadline - time.monotonic())))
        self.reap()

    def _read_output(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while True:
            try:
                content = os.read(self._process.stdout.fileno(), 65_536)
            except BlockingIOError:
                return
            if not content:
                self._stop_reading()
                return
            self.output.write(content)

    def _stop_reading(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        if self._process.stdout.fileno() in self._selector.get_map():
            self._selector.unregister(self._process.stdout)

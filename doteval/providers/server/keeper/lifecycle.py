"""Decides when the server is ready, when it is restarted, and when it has failed for good."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from .managed_server import ManagedServer, StartError

# A server that has been ready for so long may be restarted `max_restarts` times again.
_STABLE_SECONDS = 300.0
# The back-off between restarts, and between health checks of a server that starts.
_FIRST_RESTART_SECONDS, _LONGEST_RESTART_SECONDS = 0.5, 30.0
_FIRST_CHECK_SECONDS, _LONGEST_CHECK_SECONDS = 0.05, 0.5
# The longest time between two health checks of a server that is ready.
_WATCH_SECONDS = 5.0


class ServerState(StrEnum):
    """The state of a server, as the keeper reports it to the users."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


class ServerLifecycle:
    """Starts one server and restarts it when it dies or hangs.

    `on_change` is called after each change of the status. `wait` takes a number of seconds, waits no
    longer than that, and serves users meanwhile. `failure` says why the server has failed for good, else it is None.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        server: ManagedServer,
        on_change: Callable[[], None],
        wait: Callable[[float], None],
    ) -> None:
        self._settings = settings
        self._server = server
        self._on_change = on_change
        self._wait = wait
        self._state = ServerState.STARTING
        self.failure: str | None = None
        # Why the server was restarted the last time.
        self._cause: str | None = None
        self._restarts = 0
        # Restarts since the server was last stable.
        self._recent_restarts = 0
        self._was_ready = False
        self._ready_at = 0.0
        self._start_deadline = 0.0
        self._check_seconds = 0.0
        # Since when a server that was ready has not answered.
        self._silent_since: float | None = None
        # When `check` has something to do again, on the monotonic clock.
        self.next_check = 0.0

    def status(self) -> dict[str, Any]:
        """The state, port and process group, the number of restarts and the cause of the last, and the failure."""
        return {
            "state": self._state if self.failure is None else ServerState.FAILED,
            "port": self._server.port,
            "pid": self._server.pid,
            "restarts": self._restarts,
            "cause": self._cause,
            "failure": self.failure,
        }

    def start(self) -> None:
        try:
            self._server.start()
        except StartError as error:
            self.failure = f"cannot be started: {error}"
            return
        self._start_deadline = time.monotonic() + float(self._settings["start_timeout"])
        self._check_seconds, self.next_check = _FIRST_CHECK_SECONDS, 0.0
        self._on_change()

    def check(self) -> None:
        """Look whether the server has exited or, if it is time for that, whether it is healthy; act on it."""
        if not self._server.is_started:
            if time.monotonic() >= self.next_check:
                self.start()
        elif self._server.has_exited():
            code = self._server.reap()
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
            ready = self._state is ServerState.READY
            self._on_loss(how if ready else f"{how} before it answered {self._server.health_url}")
        elif time.monotonic() < self.next_check:
            return
        elif self._state is ServerState.READY:
            self._check_ready_server()
        else:
            self._check_starting_server()

    def _check_starting_server(self) -> None:
        if self._server.is_healthy():
            self._state = ServerState.READY
            self._was_ready, self._ready_at = True, time.monotonic()
            self._silent_since, self.next_check = None, self._ready_at + self._watch_seconds()
            self._on_change()
        elif time.monotonic() > self._start_deadline:
            self._server.stop(self._wait)
            seconds = float(self._settings["start_timeout"])
            self._on_loss(f"did not answer {self._server.health_url} within {seconds:g} s")
        else:
            self.next_check = time.monotonic() + self._check_seconds
            self._check_seconds = min(_LONGEST_CHECK_SECONDS, self._check_seconds * 2)

    def _check_ready_server(self) -> None:
        """Stop the server if it has not answered for `hang_timeout` seconds."""
        if self._server.is_healthy():
            self._silent_since = None
        elif not self._server.has_exited():
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since = now
            seconds = float(self._settings["hang_timeout"])
            if now - self._silent_since >= seconds:
                self._server.stop(self._wait)
                self._on_loss(f"did not answer {self._server.health_url} for {seconds:g} s")
                return
        self.next_check = time.monotonic() + self._watch_seconds()

    def _watch_seconds(self) -> float:
        """Seconds between two health checks of a server that is ready."""
        seconds = self._settings["hang_timeout"]
        return math.inf if seconds is None else min(_WATCH_SECONDS, float(seconds) / 4)

    def _on_loss(self, how: str) -> None:
        """Plan a restart of a server that has ended. One that never became ready is not restarted."""
        if not self._was_ready:
            self.failure = f"{how}{self._server.output.last_lines()}"
            return
        if self._state is ServerState.READY and time.monotonic() - self._ready_at > _STABLE_SECONDS:
            self._recent_restarts = 0
        most = int(self._settings["max_restarts"])
        if self._recent_restarts >= most:
            restarted = f"was restarted {most} time{'' if most == 1 else 's'}, and {how}" if most else how
            self.failure = f"{restarted}{self._server.output.last_lines()}"
            return
        pause = min(_LONGEST_RESTART_SECONDS, _FIRST_RESTART_SECONDS * 2.0**self._recent_restarts)
        self.next_check = time.monotonic() + pause
        self._recent_restarts += 1
        self._restarts += 1
        self._state, self._cause = ServerState.RESTARTING, how
        self._on_change()

"""The connection of this process to a server's keeper, which is started if there is none."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

from doteval.core.file_descriptors import how_to_raise, is_lack_of_descriptors
from doteval.errors import ResourceError
from doteval.providers.server import keeper
from doteval.providers.server.directory import ServerDirectory, ServerSettings
from doteval.providers.server.keeper.files import ERRORS
from doteval.providers.server.keeper.lifecycle import ServerState

logger = logging.getLogger("doteval.providers")

# Run by its path: the keeper must not wait for the imports of doteval.
_KEEPER = str(Path(keeper.__file__).resolve().with_name("__main__.py"))
# What the keeper needs to exit, beyond the time that its server takes to stop.
_KEEPER_EXIT_SECONDS = 10.0


class ServerGoneError(ResourceError, ConnectionError):
    """A server did not come up, or has failed for good.

    It is a ConnectionError too, so that it makes a row fail with an infrastructure error.
    """


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What the keeper reported last. `pid` leads the server's process group.

    `cause` says why the server was restarted the last time, `failure` why it has failed for good.
    """

    state: ServerState = ServerState.STARTING
    port: int = 0
    pid: int = 0
    restarts: int = 0
    cause: str | None = None
    failure: str | None = None


class ServerConnection:
    """Keeps a server running as long as this process lives, or until `leave`.

    A thread listens to the keeper. `name` is what messages call the server.
    """

    def __init__(self, name: str, settings: ServerSettings) -> None:
        self._name = name
        self._settings = settings
        self._directory = ServerDirectory(settings.key)
        self._connection: socket.socket | None = None
        self._status = ServerStatus()
        self._changed = threading.Condition()
        self._leaving = False
        # Restarts under keepers that have been killed since.
        self._earlier_restarts = 0
        self._port: int | None = None
        self._ready: Future[ServerStatus] = Future()
        # A daemon thread, so that the interpreter can exit while a server is still starting.
        self._thread = threading.Thread(target=self._run, name="doteval-server", daemon=True)

    def start(self) -> Future[ServerStatus]:
        """Connect in the background. The future is done when the server first answers; it fails with ResourceError."""
        self._ready.set_running_or_notify_cancel()
        self._thread.start()
        return self._ready

    @property
    def status(self) -> ServerStatus:
        return self._status

    def check(self) -> None:
        """Raises ResourceError if the server has failed for good."""
        if self._status.failure is not None:
            raise self._error(self._status.failure)

    def wait_for_restart(self, known: int, seconds: float) -> bool:
        """Whether the server has been restarted more than `known` times; waits `seconds` at most for that.

        Raises ResourceError if the server has failed for good.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._leaving or self._status.restarts > known or self._has_failed(), seconds
            )
        self.check()
        return self._status.restarts > known

    def _has_failed(self) -> bool:
        return self._status.failure is not None

    def wait_until_ready(self) -> None:
        """Wait while the server is restarted.

        Raises ResourceError if it has failed for good, or this process has left it.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._leaving or self._has_failed() or self._status.state is ServerState.READY
            )
        self.check()
        if self._leaving:
            raise ResourceError(f"the server {self._name} has been torn down")

    def leave(self) -> None:
        """Leave the server, and wait until it has stopped if nobody else uses it. A second call does nothing.

        Raises ResourceError if the keeper takes longer than it should.
        """
        with self._changed:
            if self._leaving:
                return
            self._leaving = True
            self._changed.notify_all()
            if self._connection is not None:
                self._send_leave(self._connection)
        seconds = self._settings.stop_timeout + _KEEPER_EXIT_SECONDS
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise ResourceError(
                f"the server {self._name} did not stop within {seconds:g} s",
                remedy=f"Its keeper's messages are in {self._directory.path / ERRORS}.",
            )

    def close_in_fork(self) -> None:
        """Close the connection in a forked process: the server is used by its parent only."""
        if self._connection is not None:
            self._connection.close()

    def _run(self) -> None:
        try:
            for lost in range(self._settings.max_restarts + 1):
                with self._connected() as connection:
                    self._listen(connection)
                if self._leaving or self._has_failed():
                    return
                if lost < self._settings.max_restarts:
                    # The keeper was killed, and the server with it. The next server gets the same port.
                    self._earlier_restarts = self._status.restarts + 1
                    self._update(
                        replace(self._status, state=ServerState.RESTARTING, restarts=self._earlier_restarts, cause=None)
                    )
            self._kill_remains()
            self._update(
                replace(self._status, state=ServerState.FAILED, failure="was stopped, since its keeper was killed")
            )
        except ResourceError as error:
            self._update(ServerStatus(state=ServerState.FAILED, failure=error.message), error)
        except Exception as error:
            logger.exception("the connection to the server %s failed", self._name)
            lacking = f". {how_to_raise()}" if is_lack_of_descriptors(error) else ""
            self._update(ServerStatus(state=ServerState.FAILED, failure=f"is lost: {type(error).__name__}{lacking}"))

    def _connected(self) -> socket.socket:
        with self._directory.locked():
            connection = self._connect()
            if connection is None:
                self._directory.kill_remains()
                self._start_keeper()
                connection = self._connect()
            if connection is None:
                raise ResourceError(f"the keeper of the server {self._name} exited as soon as it was started")
        connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
        with self._changed:
            self._connection = connection
            _connections.add(self)
            if self._leaving:
                self._send_leave(connection)
        return connection

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._directory.socket)
            # A keeper that is being killed may still accept, but sends nothing.
            greeted = bool(connection.recv(1, socket.MSG_PEEK))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            # There is no keeper, or it was killed.
            greeted = False
        except BaseException:
            connection.close()
            raise
        if not greeted:
            connection.close()
            return None
        return connection

    def _start_keeper(self) -> None:
        started = subprocess.run(
            [sys.executable, "-I", "-S", _KEEPER, str(self._directory.path)],
            input=self._settings.to_json(self._port),
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        if started.returncode:
            printed = (started.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise ResourceError(f"the keeper of the server {self._name} cannot be started: {printed}")

    def _send_leave(self, connection: socket.socket) -> None:
        # If the keeper is gone, the thread sees the end of the connection all the same.
        with contextlib.suppress(OSError):
            connection.sendall(b'{"leave": true}\n')

    def _listen(self, connection: socket.socket) -> None:
        rest = b""
        while received := self._receive(connection):
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._update(self._across_keepers(_parse_status(line)))

    def _receive(self, connection: socket.socket) -> bytes:
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            # The keeper was killed before it read what was sent: the connection has ended.
            return b""

    def _across_keepers(self, status: ServerStatus) -> ServerStatus:
        """Correct the status that a keeper reports, which does not know of the killed keepers before it."""
        status = replace(status, restarts=status.restarts + self._earlier_restarts)
        if self._earlier_restarts:
            if status.state is ServerState.STARTING:
                return replace(status, state=ServerState.RESTARTING)
            if status.state is ServerState.READY and status.port != self._port:
                failure = f"came back at another port, since {self._port} was taken"
                return replace(status, state=ServerState.FAILED, failure=failure)
        return status

    def _kill_remains(self) -> None:
        with self._directory.locked():
            another = self._connect()
            if another is None:
                self._directory.kill_remains()
            else:
                # Another user has already started a new keeper and server, which must live.
                another.close()

    def _update(self, status: ServerStatus, error: ResourceError | None = None) -> None:
        with self._changed:
            before, self._status = self._status, status
            if status.state is ServerState.READY and self._port is None:
                self._port = status.port
            self._changed.notify_all()
            leaving = self._leaving
        if self._ready.done():
            self._log(before, status, leaving)
        elif status.failure is not None:
            self._ready.set_exception(error or self._error(status.failure))
        elif status.state is ServerState.READY:
            self._ready.set_result(status)

    def _log(self, before: ServerStatus, status: ServerStatus, leaving: bool) -> None:
        if leaving or before.state is status.state:
            return
        if status.failure is not None:
            # Its last lines follow, which are for the user only.
            logger.error("the server %s has failed for good: it %s", self._name, status.failure.partition("\n")[0])
        elif status.state is ServerState.RESTARTING:
            logger.warning("the server %s %s and is restarted", self._name, status.cause or "has died")
        elif status.state is ServerState.READY and before.state is ServerState.RESTARTING:
            logger.warning("the server %s is ready again", self._name)

    def _error(self, failure: str) -> ServerGoneError:
        return ServerGoneError(
            f"the server {self._name} {failure}",
            remedy=f"Try its command by itself. All of its output is in {self._directory.output}.",
        )


def _parse_status(line: bytes) -> ServerStatus:
    fields: dict[str, Any] = json.loads(line)
    return ServerStatus(**{**fields, "state": ServerState(fields["state"])})


_connections: WeakSet[ServerConnection] = WeakSet()


def _close_in_fork() -> None:
    connections = list(_connections)
    _connections.clear()
    for connection in connections:
        connection.close_in_fork()


os.register_at_fork(after_in_child=_close_in_fork)

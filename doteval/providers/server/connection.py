"""A user of a server: a connection to its keeper, which is started if there is none."""

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

from doteval.errors import ResourceError
from doteval.providers.server import keeper
from doteval.providers.server.directory import ServerDirectory, ServerSettings

logger = logging.getLogger("doteval.providers")

# What the keeper needs to say goodbye, beyond what its server takes to stop.
_GOODBYE_SECONDS = 10.0


class ServerGoneError(ResourceError, ConnectionError):
    """A server did not come up, or is gone for good.

    A ConnectionError too, so that a row which meets it counts as a failure of the infrastructure.
    """


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What the keeper said last. `state` is starting, ready, restarting or failed; `pid` leads the process group.

    `cause` is why it was started again the last time, `failure` why it is gone for good.
    """

    state: str = "starting"
    port: int = 0
    pid: int = 0
    restarts: int = 0
    cause: str | None = None
    failure: str | None = None


class ServerHolder:
    """Keeps a server alive as long as this process lives, or until `leave`.

    A thread of its own listens to the keeper. `name` is what messages call the server.
    """

    def __init__(self, name: str, settings: ServerSettings) -> None:
        self._name = name
        self._settings = settings
        self._directory = ServerDirectory(settings.key)
        self._connection: socket.socket | None = None
        self._status = ServerStatus()
        self._changed = threading.Condition()
        self._leaving = False
        self._restarts_before = 0
        self._port: int | None = None
        self._ready: Future[ServerStatus] = Future()
        # A daemon: a server that takes long to start must not hold the interpreter back.
        self._thread = threading.Thread(target=self._hold, name="doteval-server", daemon=True)

    def start(self) -> Future[ServerStatus]:
        """Begin. What is returned is done when the server first answers; it fails with ResourceError."""
        self._ready.set_running_or_notify_cancel()
        self._thread.start()
        return self._ready

    @property
    def status(self) -> ServerStatus:
        return self._status

    def check(self) -> None:
        """Raises ResourceError if the server is gone for good."""
        if self._status.failure is not None:
            raise self._error(self._status.failure)

    def wait_for_restart(self, known: int, seconds: float) -> bool:
        """Whether the server is, or was, started again more often than the `known` times; waits so long for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._status.restarts > known or self._is_gone(), seconds)
        self.check()
        return self._status.restarts > known

    def _is_gone(self) -> bool:
        return self._status.failure is not None

    def wait_until_ready(self) -> None:
        """Wait while the server is started again. Raises ResourceError if it is gone for good, or this user left."""
        with self._changed:
            self._changed.wait_for(lambda: self._leaving or self._is_gone() or self._status.state == "ready")
        self.check()
        if self._leaving:
            raise ResourceError(f"the server {self._name} has been torn down")

    def leave(self) -> None:
        """Let the server go, and wait for its end if nobody else uses it. A second call does nothing.

        Raises ResourceError if the keeper takes longer than it should.
        """
        with self._changed:
            if self._leaving:
                return
            self._leaving = True
            self._changed.notify_all()
            if self._connection is not None:
                self._say_goodbye(self._connection)
        patience = self._settings.stop_timeout + _GOODBYE_SECONDS
        self._thread.join(patience)
        if self._thread.is_alive():
            raise ResourceError(
                f"the server {self._name} did not stop within {patience:g} s",
                remedy=f"Its keeper's messages are in {self._directory.path / keeper.COMPLAINTS}.",
            )

    def forget(self) -> None:
        """In a forked process: the server is the parent's."""
        if self._connection is not None:
            self._connection.close()

    def _hold(self) -> None:
        try:
            for lost in range(self._settings.max_restarts + 1):
                with self._connected() as connection:
                    self._listen(connection)
                if self._leaving or self._is_gone():
                    return
                if lost < self._settings.max_restarts:
                    # The keeper was killed. The server goes with it, and the next is where it was.
                    self._restarts_before = self._status.restarts + 1
                    self._take(replace(self._status, state="restarting", restarts=self._restarts_before, cause=None))
            self._clear_up()
            self._take(replace(self._status, state="failed", failure="was stopped, since its keeper was killed"))
        except ResourceError as error:
            self._take(ServerStatus(state="failed", failure=error.message), error)
        except Exception as error:
            logger.exception("the server %s is lost", self._name)
            self._take(ServerStatus(state="failed", failure=f"{type(error).__name__}: {error}"))

    def _connected(self) -> socket.socket:
        with self._directory.locked():
            connection = self._connect()
            if connection is None:
                self._directory.kill_remains()
                self._start_keeper()
                connection = self._connect()
            if connection is None:
                raise ResourceError(f"the keeper of the server {self._name} has ended at once")
        connection.sendall(json.dumps({"pid": os.getpid()}).encode() + b"\n")
        with self._changed:
            self._connection = connection
            _holders.add(self)
            if self._leaving:
                self._say_goodbye(connection)
        return connection

    def _connect(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(self._directory.socket)
            # One that is being killed may still let us connect, but says nothing.
            greeted = bool(connection.recv(1, socket.MSG_PEEK))
        except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError):
            # There was no keeper, or it was killed.
            greeted = False
        except BaseException:
            connection.close()
            raise
        if not greeted:
            connection.close()
            return None
        return connection

    def _start_keeper(self) -> None:
        command = [sys.executable, "-I", "-S", str(Path(keeper.__file__).resolve()), str(self._directory.path)]
        started = subprocess.run(
            command,
            input=self._settings.to_json(self._port),
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
        )
        if started.returncode:
            said = (started.stderr.strip().splitlines() or ["it printed nothing"])[-1]
            raise ResourceError(f"the keeper of the server {self._name} cannot be started: {said}")

    def _say_goodbye(self, connection: socket.socket) -> None:
        # A keeper that is gone needs no goodbye: the thread sees the end of the connection.
        with contextlib.suppress(OSError):
            connection.sendall(b'{"leave": true}\n')

    def _listen(self, connection: socket.socket) -> None:
        rest = b""
        while received := self._receive(connection):
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                self._take(self._understood(ServerStatus(**json.loads(line))))

    def _receive(self, connection: socket.socket) -> bytes:
        try:
            return connection.recv(65_536)
        except ConnectionResetError:
            # The keeper was killed with something of ours unread: the same as an end.
            return b""

    def _understood(self, told: ServerStatus) -> ServerStatus:
        """What a keeper said, who knows nothing of keepers before it."""
        told = replace(told, restarts=told.restarts + self._restarts_before)
        if self._restarts_before:
            if told.state == "starting":
                return replace(told, state="restarting")
            if told.state == "ready" and told.port != self._port:
                return replace(told, state="failed", failure=f"came back at another port, since {self._port} was taken")
        return told

    def _clear_up(self) -> None:
        with self._directory.locked():
            another = self._connect()
            if another is None:
                self._directory.kill_remains()
            else:
                # Somebody was faster, and has a keeper and a server of their own by now.
                another.close()

    def _take(self, status: ServerStatus, error: ResourceError | None = None) -> None:
        with self._changed:
            before, self._status = self._status, status
            if status.state == "ready" and self._port is None:
                self._port = status.port
            self._changed.notify_all()
            leaving = self._leaving
        if self._ready.done():
            self._log(before, status, leaving)
        elif status.failure is not None:
            self._ready.set_exception(error or self._error(status.failure))
        elif status.state == "ready":
            self._ready.set_result(status)

    def _log(self, before: ServerStatus, status: ServerStatus, leaving: bool) -> None:
        if leaving or before.state == status.state:
            return
        if status.failure is not None:
            logger.error("the server %s is gone for good: it %s", self._name, status.failure)
        elif status.state == "restarting":
            logger.warning("the server %s %s, and is started again", self._name, status.cause or "has died")
        elif status.state == "ready" and before.state == "restarting":
            logger.warning("the server %s is back", self._name)

    def _error(self, failure: str) -> ServerGoneError:
        return ServerGoneError(
            f"the server {self._name} {failure}",
            remedy=f"Try its command by itself. All of its output is in {self._directory.output}.",
        )


_holders: WeakSet[ServerHolder] = WeakSet()


def _forget_all() -> None:
    holders: list[Any] = list(_holders)
    _holders.clear()
    for holder in holders:
        holder.forget()


os.register_at_fork(after_in_child=_forget_all)

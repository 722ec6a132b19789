"""The loop of a keeper: it serves the users of a server and ends with the last of them."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import selectors
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Any

from .files import ERRORS, LOCK, SOCKET, STATUS
from .lifecycle import ServerLifecycle
from .managed_server import ManagedServer
from .processes import started_at

# The longest wait for an event, and the wait while a process may be connecting.
_IDLE_SECONDS = 5.0
_CONNECTING_SECONDS = 0.05


class _User:
    """What is known of the process behind a connection; `received` is a line that is not complete yet."""

    def __init__(self) -> None:
        self.pid: int | None = None
        self.received = b""


class Keeper:
    """Keeps one server for the users that connect to `listener`.

    `settings` are those of `doteval.providers.server.directory.ServerSettings`.
    """

    def __init__(self, settings: dict[str, Any], listener: socket.socket) -> None:
        self._listener = listener
        self._users: dict[socket.socket, _User] = {}
        # Users that have left and wait for the server's end.
        self._leaving: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._lock = os.open(LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
        self._server = ManagedServer(settings, self._selector)
        self._lifecycle = ServerLifecycle(settings, self._server, self._notify_users, self._serve_once)
        self._stop_requested = False
        self._wakeup_reader, self._wakeup_writer = socket.socketpair()

    def serve(self) -> None:
        """Keep the server until its last user has left, it has failed for good, or SIGTERM arrives."""
        for end in (self._wakeup_reader, self._wakeup_writer):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup_writer.fileno())
        # A handler that does nothing: the signal still ends the wait for events.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wakeup_reader, selectors.EVENT_READ, self._drain_wakeups)
        self._lifecycle.start()
        while self._lifecycle.failure is None and not self._stop_requested:
            self._lifecycle.check()
            if self._lifecycle.failure is None:
                self._serve_once(self._seconds_until_check())
            if not self._users and self._nobody_is_connecting():
                break
        self._end()

    def _serve_once(self, seconds: float) -> None:
        """Wait for events, at most for `seconds`, and handle them."""
        for key, _ in self._selector.select(seconds):
            # An event handled before this one may have closed its file.
            if key.fd in self._selector.get_map():
                key.data()

    def _seconds_until_check(self) -> float:
        if not self._users:
            # A process holds the lock and is connecting, or the last user has just left.
            return _CONNECTING_SECONDS
        return min(_IDLE_SECONDS, max(0.0, self._lifecycle.next_check - time.monotonic()))

    def _drain_wakeups(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wakeup_reader.recv(4096)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop_requested = True

    def _accept(self) -> None:
        while True:
            try:
                user, _ = self._listener.accept()
            except BlockingIOError:
                return
            user.setblocking(False)
            self._users[user] = _User()
            self._selector.register(user, selectors.EVENT_READ, functools.partial(self._receive, user))
            # The server goes on for the new user, so those that wait for its end need not.
            for left in list(self._leaving):
                self._forget(left)
            self._send_status(user)

    def _receive(self, user: socket.socket) -> None:
        try:
            received = user.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        if not received:
            self._forget(user)
            return
        known = self._users.get(user)
        if known is None:
            return
        *lines, known.received = (known.received + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message.get("leave"):
                del self._users[user]
                self._leaving.add(user)
                if self._users:
                    self._forget(user)
            else:
                known.pid = message["pid"]
            self._write_status()

    def _forget(self, user: socket.socket) -> None:
        self._users.pop(user, None)
        self._leaving.discard(user)
        self._selector.unregister(user)
        user.close()
        self._write_status()

    def _notify_users(self) -> None:
        self._write_status()
        for user in self._users:
            self._send_status(user)

    def _send_status(self, user: socket.socket) -> None:
        # The connection of a user that is gone is closed when it is read next.
        with contextlib.suppress(OSError):
            user.sendall(json.dumps(self._lifecycle.status()).encode() + b"\n")

    def _write_status(self) -> None:
        """Write the status to a file: for people, and for users that come after this process was killed."""
        pid = self._server.pid
        status = {
            **self._lifecycle.status(),
            "started": started_at(pid) if pid else None,
            "keeper": os.getpid(),
            "users": [user.pid for user in self._users.values()],
        }
        new = Path(f"{STATUS}.new")
        new.write_text(json.dumps(status), encoding="utf-8")
        new.replace(STATUS)

    def _nobody_is_connecting(self) -> bool:
        """Whether the keeper holds the lock now, and no process that held it before has connected."""
        if not self._try_lock():
            return False
        self._accept()
        if self._users:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            return False
        return True

    def _try_lock(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _end(self) -> None:
        if self._stop_requested and self._lifecycle.failure is None and self._users:
            self._lifecycle.failure = "was stopped together with its keeper, by signal 15"
        # A process that holds the lock waits for its first line; after that nobody can connect any more.
        while not self._try_lock():
            self._serve_once(_CONNECTING_SECONDS)
        self._accept()
        self._server.stop(self._serve_once)
        Path(SOCKET).unlink()
        Path(STATUS).unlink(missing_ok=True)
        for user in self._users:
            self._send_status(user)
        self._server.output.close()
        if self._lifecycle.failure is None:
            self._server.output.delete()
            Path(ERRORS).unlink(missing_ok=True)

"""The keeper of one server: starts it, watches it, starts it again when it dies or hangs, stops it with its last user.

It runs as a program of its own, ``python -I -S keeper.py DIRECTORY`` with its settings as JSON on standard
input, and imports nothing but the standard library: it is up in a few hundredths of a second and small. The
first process that wants the server starts it; it detaches itself, and is a child of none of the users.

Who uses the server holds a connection to the keeper's Unix socket in DIRECTORY. The kernel closes it when
a user ends, however it ends: that is the count of users, and no process id has to be trusted. Without a
user, and with nobody on the way, the keeper stops the server and ends.

Nobody can be on the way unseen: whoever connects holds a lock on the file ``lock`` until the keeper has sent
its first line, and the keeper leaves only with that lock in hand, which it keeps until the server is gone. So
the next user's server never meets this one.

If the keeper itself is killed, the kernel kills the server (on Linux). Users kill what is left of its process
group and start another keeper, and so does the next user that finds the remains.

Messages are lines of JSON. The keeper sends its `status` whenever it changes; a user sends ``{"pid": ...}``
first and ``{"leave": true}`` last, and has left when the keeper closes the connection.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import http.client
import json
import math
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

LOCK = "lock"
SOCKET = "keeper.sock"
STATUS = "status.json"
OUTPUT = "output.log"
COMPLAINTS = "keeper.log"

# Below the ports that the kernel gives to outgoing connections (32768 and more on Linux).
FIRST_PORT, PORTS = 20_000, 12_000
# A server that has been up so long has earned all its restarts again.
_STEADY_SECONDS = 300.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_FIRST_LOOK, _LONGEST_LOOK = 0.05, 0.5
_HEALTH_SECONDS = 2.0
_IDLE_SECONDS = 5.0
_TAIL_LINES, _TAIL_WIDTH, _TAIL_BYTES = 15, 160, 16_384
_LOG_BYTES = 8 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class Keeper:
    """Keeps one server. `settings` are those of `doteval.providers.server.directory.ServerSettings`."""

    def __init__(self, settings: dict[str, Any], listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._users: dict[socket.socket, dict[str, Any]] = {}
        self._leaving: set[socket.socket] = set()
        self._selector = selectors.DefaultSelector()
        self._lock = os.open(LOCK, os.O_RDONLY | os.O_CREAT, 0o600)
        self._log = _log_file()
        self._tail = b""
        self._process: subprocess.Popen[bytes] | None = None
        self._group = 0
        self._reservation = -1
        self._port = 0
        self._state = "starting"
        self._failure: str | None = None
        self._restarts = 0
        self._tries = 0
        self._was_ready = False
        self._ready_at = 0.0
        self._deadline = 0.0
        self._next_look = 0.0
        self._look_pause = 0.0
        # Since when a server that was ready has not answered.
        self._silent_since: float | None = None
        # Why it was started again the last time.
        self._cause: str | None = None
        self._told_to_stop = False
        self._woken, self._waker = socket.socketpair()

    def serve(self) -> None:
        """Keep the server until its last user has left, it failed for good, or a signal says to stop."""
        for end in (self._woken, self._waker):
            end.setblocking(False)
        signal.set_wakeup_fd(self._waker.fileno())
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes us up
        signal.signal(signal.SIGTERM, self._on_stop)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._woken, selectors.EVENT_READ, self._wake)
        self._start()
        while self._failure is None and not self._told_to_stop:
            self._look_after_server()
            if self._failure is None:
                self._serve_once(self._until_next_look())
            if not self._users and self._nobody_is_coming():
                break
        self._leave()

    # Users

    def _accept(self) -> None:
        while True:
            try:
                user, _ = self._listener.accept()
            except BlockingIOError:
                return
            user.setblocking(False)
            self._users[user] = {"pid": None, "received": b""}
            self._selector.register(user, selectors.EVENT_READ, functools.partial(self._receive, user))
            # Whoever waits for the server's end need not wait when somebody else has come.
            for left in list(self._leaving):
                self._forget(left)
            self._send(user)

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
        *lines, known["received"] = (known["received"] + received).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message.get("leave"):
                del self._users[user]
                self._leaving.add(user)
                if self._users:
                    self._forget(user)
            else:
                known["pid"] = message["pid"]
            self._write_status()

    def _forget(self, user: socket.socket) -> None:
        self._users.pop(user, None)
        self._leaving.discard(user)
        self._selector.unregister(user)
        user.close()
        self._write_status()

    def _tell(self) -> None:
        self._write_status()
        for user in self._users:
            self._send(user)

    def _send(self, user: socket.socket) -> None:
        # A user that is gone is noticed when its connection is read.
        with contextlib.suppress(OSError):
            user.sendall(json.dumps(self.status()).encode() + b"\n")

    def status(self) -> dict[str, Any]:
        """What users are told: `state` is starting, ready, restarting or failed; `failure` says why it failed.

        `cause` says why it was started again the last time.
        """
        return {
            "state": "failed" if self._failure is not None else self._state,
            "port": self._port,
            "pid": self._group,
            "restarts": self._restarts,
            "cause": self._cause,
            "failure": self._failure,
        }

    def _write_status(self) -> None:
        """The same for people, and for who comes when this process has been killed."""
        known = {
            **self.status(),
            "started": started_at(self._group) if self._group else None,
            "keeper": os.getpid(),
            "users": [user["pid"] for user in self._users.values()],
        }
        new = Path(f"{STATUS}.new")
        new.write_text(json.dumps(known), encoding="utf-8")
        new.replace(STATUS)

    def _nobody_is_coming(self) -> bool:
        """Whether the lock could be had, and nobody has connected who had it before."""
        if not self._has_locked():
            return False
        self._accept()
        if self._users:
            fcntl.flock(self._lock, fcntl.LOCK_UN)
            return False
        return True

    def _has_locked(self) -> bool:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    # The server

    def _start(self) -> None:
        own = {name: value for name, value in os.environ.items() if not name.startswith("DOTEVAL_")}
        try:
            if not self._port:
                self._port, self._reservation = _free_port(int(self._settings["first_port"]))
            self._process = subprocess.Popen(
                [word.replace("{port}", str(self._port)) for word in self._settings["command"]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._settings["directory"],
                env={**own, **self._settings["environment"]},
                start_new_session=True,
                # Safe in a process with one thread.
                preexec_fn=_dies_with(os.getpid()) if sys.platform == "linux" else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
            if isinstance(error, OSError) and error.filename and error.strerror:
                reason = f"{error.filename}: {error.strerror}"
            self._failure = f"cannot be started: {reason}"
            return
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector.register(self._process.stdout, selectors.EVENT_READ, self._read_output)
        self._group = self._process.pid
        self._deadline = time.monotonic() + float(self._settings["start_timeout"])
        self._look_pause, self._next_look = _FIRST_LOOK, 0.0
        self._tell()

    def _look_after_server(self) -> None:
        if self._process is None:
            if time.monotonic() >= self._next_look:
                self._start()
        elif self._has_exited():
            code = self._bury()
            how = f"was ended by signal {-code}" if code < 0 else f"exited with code {code}"
            self._lost(how if self._state == "ready" else f"{how} before it answered {self._health_url()}")
        elif time.monotonic() < self._next_look:
            return
        elif self._state == "ready":
            self._look_whether_it_hangs()
        else:
            if self._is_healthy():
                self._state = "ready"
                self._was_ready, self._ready_at = True, time.monotonic()
                self._silent_since, self._next_look = None, self._ready_at + self._watch_pause()
                self._tell()
            elif time.monotonic() > self._deadline:
                self._end_server()
                seconds = float(self._settings["start_timeout"])
                self._lost(f"did not answer {self._health_url()} within {seconds:g} s")
            else:
                self._next_look = time.monotonic() + self._look_pause
                self._look_pause = min(_LONGEST_LOOK, self._look_pause * 2)

    def _look_whether_it_hangs(self) -> None:
        """End a server that is there, and has not answered for longer than it may."""
        if self._is_healthy():
            self._silent_since = None
        elif not self._has_exited():
            now = time.monotonic()
            if self._silent_since is None:
                self._silent_since = now
            seconds = float(self._settings["hang_timeout"])
            if now - self._silent_since >= seconds:
                self._end_server()
                self._lost(f"did not answer {self._health_url()} for {seconds:g} s")
                return
        self._next_look = time.monotonic() + self._watch_pause()

    def _watch_pause(self) -> float:
        """Seconds between two looks at a server that is ready."""
        seconds = self._settings["hang_timeout"]
        return math.inf if seconds is None else min(_IDLE_SECONDS, float(seconds) / 4)

    def _lost(self, how: str) -> None:
        """The server is gone. One that never was up is not worth another try."""
        if not self._was_ready:
            self._failure = f"{how}{self._said()}"
            return
        if self._state == "ready" and time.monotonic() - self._ready_at > _STEADY_SECONDS:
            self._tries = 0
        most = int(self._settings["max_restarts"])
        if self._tries >= most:
            tried = f"was started again {most} time{'' if most == 1 else 's'}, and {how}" if most else how
            self._failure = f"{tried}{self._said()}"
            return
        self._next_look = time.monotonic() + min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._tries)
        self._tries += 1
        self._restarts += 1
        self._state, self._cause = "restarting", how
        self._tell()

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_HEALTH_SECONDS)
        try:
            connection.request("GET", self._settings["health"])
            healthy = 200 <= connection.getresponse().status < 300
        except (OSError, http.client.HTTPException):
            # It does not listen yet, or not properly.
            return False
        finally:
            connection.close()
        return healthy and not self._has_exited()

    def _health_url(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._settings['health']}"

    def _has_exited(self) -> bool:
        # Left unreaped: its id names its process group as long, and no other process.
        assert self._process is not None
        return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _bury(self) -> int:
        """Kill what is left of the server's group, and read its last words. Returns its exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: a group of zombies
            os.killpg(self._group, signal.SIGKILL)
        code = self._process.wait()
        self._read_output()
        self._stop_reading()
        self._process.stdout.close()
        self._process, self._group = None, 0
        return code

    def _end_server(self) -> None:
        """Ask the server's group to end, wait, and kill it if it does not."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._group, signal.SIGTERM)
        deadline = time.monotonic() + float(self._settings["stop_timeout"])
        while not self._has_exited() and time.monotonic() < deadline:
            self._serve_once(min(_IDLE_SECONDS, max(0.0, deadline - time.monotonic())))
        self._bury()

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
            self._tail = (self._tail + content)[-_TAIL_BYTES:]
            self._log.write(content)
            self._log.flush()
            if self._log.tell() > _LOG_BYTES:
                self._log.close()
                Path(OUTPUT).replace(f"{OUTPUT}.old")
                self._log = _log_file()

    def _stop_reading(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        if self._process.stdout.fileno() in self._selector.get_map():
            self._selector.unregister(self._process.stdout)

    def _said(self) -> str:
        """The end of the server's output, for a message: few lines, none of them long."""
        text = _CONTROL.sub(b"", self._tail.replace(b"\r", b"\n")).decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if not lines:
            return "; it printed nothing"
        cut = [line if len(line) <= _TAIL_WIDTH else f"{line[: _TAIL_WIDTH - 1]}…" for line in lines[-_TAIL_LINES:]]
        return "; its last output:\n" + "\n".join(f"  {line}" for line in cut)

    # The loop

    def _serve_once(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            # One that was called before may have ended this one.
            if key.fd in self._selector.get_map():
                key.data()

    def _until_next_look(self) -> float:
        if not self._users:
            # Somebody has the lock, or has just left.
            return _FIRST_LOOK
        return min(_IDLE_SECONDS, max(0.0, self._next_look - time.monotonic()))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(4096)

    def _on_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _leave(self) -> None:
        if self._told_to_stop and self._failure is None and self._users:
            self._failure = "was stopped together with its keeper, by signal 15"
        # Nobody comes any more, once who is on the way has come: who has the lock waits for our greeting.
        while not self._has_locked():
            self._serve_once(_FIRST_LOOK)
        self._accept()
        self._end_server()
        Path(SOCKET).unlink()
        Path(STATUS).unlink(missing_ok=True)
        for user in self._users:
            self._send(user)
        self._log.close()
        if self._failure is None:
            for name in (OUTPUT, f"{OUTPUT}.old", COMPLAINTS):
                Path(name).unlink(missing_ok=True)


def _log_file() -> BinaryIO:
    return Path(OUTPUT).open("wb")


def started_at(pid: int) -> str | None:
    """When a process started, in ticks since the machine did: with its id, what tells it from all others.

    None if there is none, or where /proc does not tell.
    """
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None


def _free_port(first: int) -> tuple[int, int]:
    """A port that nobody listens on, and the descriptor of the file whose lock keeps other keepers off it.

    The first choice belongs to the command, so that a server is mostly found where it was the last time.
    """
    for port in _ports_from(first):
        reservation = os.open(f"../port-{port}", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(reservation)
            continue
        return port, reservation
    raise OSError("every port is taken")


def _ports_from(first: int) -> Iterator[int]:
    for step in range(PORTS):
        yield FIRST_PORT + (first - FIRST_PORT + step) % PORTS


def _dies_with(parent: int) -> Any:
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return prepare


def main() -> None:
    """Listen, detach, keep. Ends with code 0 in the calling process as soon as users can connect."""
    settings = json.load(sys.stdin)
    # A socket's path is short that way, and names of files are plain.
    os.chdir(sys.argv[1])
    Path(SOCKET).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(SOCKET)
    listener.listen(128)
    if os.fork():
        os._exit(0)
    with Path(COMPLAINTS).open("wb") as complaints, Path(os.devnull).open("r+b") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(nothing.fileno(), 1)
        os.dup2(complaints.fileno(), 2)
    Keeper(settings, listener).serve()


if __name__ == "__main__":
    main()

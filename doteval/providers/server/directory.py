"""The private directory of a server, in which all processes of one user on a machine find its keeper."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from doteval.errors import ResourceError
from doteval.providers.server.keeper import files, ports, processes

# A Unix socket's path has 104 bytes on macOS and 108 on Linux, the final NUL included.
_SOCKET_PATH_LIMIT = 103


@dataclass(frozen=True)
class ServerSettings:
    """The settings of a server and its keeper. Timeouts are in seconds.

    `health` is the path of the health URL, `directory` the server's working directory. `environment` is added to the
    environment of the process that starts the server. With `hang_timeout` None, a server that stops answering is not
    restarted.
    """

    command: tuple[str, ...]
    health: str
    environment: dict[str, str]
    directory: str
    start_timeout: float
    stop_timeout: float
    hang_timeout: float | None
    max_restarts: int

    @property
    def key(self) -> str:
        """A digest of the settings that identify a server: command, environment, directory and health path."""
        identity = [self.command, sorted(self.environment.items()), self.directory, self.health]
        return hashlib.blake2b(json.dumps(identity).encode(), digest_size=10).hexdigest()

    def to_json(self, port: int | None = None) -> str:
        """The settings as the keeper reads them. `port` is tried first; by default it follows from the key."""
        first_port = port or ports.FIRST_PORT + int(self.key, 16) % ports.PORTS
        return json.dumps(
            {
                "command": self.command,
                "health": self.health,
                "environment": self.environment,
                "directory": self.directory,
                "start_timeout": self.start_timeout,
                "stop_timeout": self.stop_timeout,
                "hang_timeout": self.hang_timeout,
                "max_restarts": self.max_restarts,
                "first_port": first_port,
            }
        )


class ServerDirectory:
    """The directory of one server. Its mode is 0700, so that no other user of the machine can access its files."""

    def __init__(self, key: str) -> None:
        parent = _parent()
        _make_private(parent)
        self.path = parent / key
        _make_private(self.path)

    @property
    def socket(self) -> str:
        return str(self.path / files.SOCKET)

    @property
    def output(self) -> Path:
        """The file with the output of the server."""
        return self.path / files.OUTPUT

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock that a connecting process holds. Waits for a keeper that is about to exit."""
        with (self.path / files.LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def status(self) -> dict[str, Any] | None:
        """The status that the keeper wrote last; None if it has exited regularly, or there was none."""
        try:
            status: dict[str, Any] = json.loads((self.path / files.STATUS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return status

    def kill_remains(self) -> None:
        """Kill the process group of a server whose keeper was killed. The caller has to know that the keeper is gone.

        On a machine without /proc nothing is killed, since the process group may belong to another program by now.
        """
        status = self.status()
        group = status["pid"] if status else 0
        if not status or not group or status["started"] is None:
            return
        started = processes.started_at(group)
        # A pid is not reused while a process group has that id. So either the leader is the server; or it is gone and
        # the group is what it left behind; or the pid belongs to another process, and then the group is gone.
        if started in (status["started"], None):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        (self.path / files.STATUS).unlink(missing_ok=True)


def _parent() -> Path:
    """The directory of all servers of this user, which every process finds.

    Raises ResourceError if its path is too long for a socket.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [Path(runtime) / "doteval-servers"] if runtime and Path(runtime).is_dir() else []
    candidates += [Path(parent) / f"doteval-servers-{os.getuid()}" for parent in (tempfile.gettempdir(), "/tmp")]  # noqa: S108
    for candidate in candidates:
        if len(os.fsencode(candidate / ("x" * 20) / files.SOCKET)) <= _SOCKET_PATH_LIMIT:
            return candidate
    raise ResourceError(
        f"the path {candidates[0]} is too long for a socket",
        remedy="Set XDG_RUNTIME_DIR to a directory of your own whose path is short.",
    )


def _make_private(directory: Path) -> None:
    """Make the directory, or check that only this user has access to it. Raises ResourceError if that fails."""
    remedy = "Remove it, or set XDG_RUNTIME_DIR to a directory of your own."
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise ResourceError(f"the directory {directory} cannot be made: {error.strerror}", remedy=remedy) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ResourceError(f"{directory} does not belong to you, or is not a directory", remedy=remedy)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ResourceError(f"others have access to the directory {directory}", remedy=f"chmod 700 it, or: {remedy}")

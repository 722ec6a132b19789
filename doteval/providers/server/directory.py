"""Where the processes of one user on one machine agree about a server: a private directory for each command."""

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
    """What a keeper is told. Times are seconds; `health` is the path of a URL, `directory` where the server runs.

    `environment` is added to the environment of the process that is first. `hang_timeout` None: a server that does
    not answer any more is left alone.
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
        """A digest of what makes two servers the same: command, environment, directory and health path."""
        identity = [self.command, sorted(self.environment.items()), self.directory, self.health]
        return hashlib.blake2b(json.dumps(identity).encode(), digest_size=10).hexdigest()

    def to_json(self, port: int | None = None) -> str:
        """What the keeper reads. `port` is the one to try first; None is the command's own."""
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
    """The directory of one server, of mode 0700: no other user of the machine can reach what is in it."""

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
        """What the server printed."""
        return self.path / files.OUTPUT

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of who connects. Waits for a keeper that is about to leave."""
        with (self.path / files.LOCK).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def status(self) -> dict[str, Any] | None:
        """What the keeper wrote last; None if it has left in order, or there was none."""
        try:
            status: dict[str, Any] = json.loads((self.path / files.STATUS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return status

    def kill_remains(self) -> None:
        """Kill the process group of a server whose keeper was killed.

        Only for who knows that the keeper is gone. Where /proc does not tell when a process started, a server
        whose leader may be another process is left alone.
        """
        status = self.status()
        group = status["pid"] if status else 0
        if not status or not group or status["started"] is None:
            return
        started = processes.started_at(group)
        # An id is not given again while a process group has it. So either the leader is the server, or it is
        # gone and the group is what it left, or the id is that of another process: then the group is gone.
        if started in (status["started"], None):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        (self.path / files.STATUS).unlink(missing_ok=True)


def _parent() -> Path:
    """The directory that all processes of the user find.

    Raises ResourceError if its path is too long for a socket.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    places = [Path(runtime) / "doteval-servers"] if runtime and Path(runtime).is_dir() else []
    places += [Path(place) / f"doteval-servers-{os.getuid()}" for place in (tempfile.gettempdir(), "/tmp")]  # noqa: S108
    for place in places:
        if len(os.fsencode(place / ("x" * 20) / files.SOCKET)) <= _SOCKET_PATH_LIMIT:
            return place
    raise ResourceError(
        f"the path {places[0]} is too long for a socket",
        remedy="Set XDG_RUNTIME_DIR to a directory of your own with a short path.",
    )


def _make_private(directory: Path) -> None:
    """Make the directory, or make sure that it is ours alone. Raises ResourceError if it cannot be."""
    remedy = "Remove it, or set XDG_RUNTIME_DIR to a directory of your own."
    try:
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
    except OSError as error:
        raise ResourceError(f"the directory {directory} cannot be made: {error.strerror}", remedy=remedy) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ResourceError(f"{directory} is not a directory of yours", remedy=remedy)
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ResourceError(f"others have access to the directory {directory}", remedy=f"chmod 700 it, or: {remedy}")

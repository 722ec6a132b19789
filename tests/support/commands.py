"""Starts commands fast, by forking a process that has imported the libraries.

`python -m MODULE` spends its first second importing SQLModel and other libraries, and the tests start a thousand
commands. Everything else is as in a new process: doteval's own modules are imported anew, and directory, environment,
arguments and streams are the command's own. Tests of the start itself (`python -c`, other interpreters, terminals,
limits) start new processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

_SERVER = Path(__file__).with_name("fork_server.py")
_NOTICE = struct.Struct("!ci")


class Command:
    """A running command, with the interface of `subprocess.Popen`."""

    def __init__(self, name: str, connection: socket.socket) -> None:
        self._name = name
        self._socket = connection
        self.pid = self._receive(b"+")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (-n if signal n ended it), None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._socket], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self._name, timeout)
            self.returncode = self._receive(b"-")
            self._socket.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _receive(self, expected: bytes) -> int:
        data = self._socket.recv(_NOTICE.size, socket.MSG_WAITALL)
        what, number = _NOTICE.unpack(data) if len(data) == _NOTICE.size else (b"", 0)
        if what != expected:
            raise RuntimeError(f"{self._name} could not be started; stderr has the reason")
        return int(number)


class Commands:
    """Starts ``python -m MODULE`` in forks of the fork server."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._server = subprocess.Popen(
                # -P: modules of tests/support have the names of libraries.
                [sys.executable, "-P", str(_SERVER), str(theirs.fileno())],
                cwd="/",
                # Each command has its own PYTHONPATH.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        session: bool = False,
    ) -> Command:
        """Start ``python -m MODULE ARGUMENTS``, with an empty stdin; `session`: in its own session."""
        asked = {
            "module": module,
            "arguments": list(arguments),
            "directory": str(directory),
            "environment": dict(environment),
            "session": session,
        }
        ours, theirs = socket.socketpair()
        with theirs, Path(os.devnull).open() as stdin:
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._control, [b"+"], [theirs.fileno(), *streams])
        ours.sendall(json.dumps(asked).encode())
        ours.shutdown(socket.SHUT_WR)
        return Command(" ".join([module, *arguments]), ours)

    def run(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        timeout: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end. Kills it after `timeout` seconds, and raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
            command = self.start(
                module, arguments, directory=directory, environment=environment, stdout=stdout, stderr=stderr
            )
            try:
                code = command.wait(timeout)
            except BaseException:
                command.kill()
                command.wait()
                raise
            return subprocess.CompletedProcess([module, *arguments], code, _text(stdout), _text(stderr))

    def close(self) -> None:
        self._control.close()
        self._server.wait(30)


def _text(written: IO[bytes]) -> str:
    written.seek(0)
    # As subprocess decodes it.
    return written.read().decode().replace("\r\n", "\n").replace("\r", "\n")


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Starts commands, for tests that do not depend on how a process starts."""
    service = Commands()
    yield service
    service.close()

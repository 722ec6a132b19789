"""Commands in processes of their own that are there at once: forked from one that has imported the libraries.

What `python -m MODULE` does in its first second is to import SQLModel and its like, and the tests start a thousand
commands. Everything else is as in a process that begins from nothing: doteval's own modules are imported anew, and
directory, environment, arguments and streams are the command's own. Those that tell something of the start itself
(`python -c`, other interpreters, terminals, limits) begin from nothing.
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
_TOLD = struct.Struct("!ci")


class Command:
    """A running command, with the names of `subprocess.Popen`."""

    def __init__(self, name: str, line: socket.socket) -> None:
        self._name = name
        self._line = line
        self.pid = self._told(b"+")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code (-n if signal n ended it), None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired if it goes on after `timeout` seconds."""
        if self.returncode is None:
            if not select.select([self._line], [], [], timeout)[0]:
                assert timeout is not None
                raise subprocess.TimeoutExpired(self._name, timeout)
            self.returncode = self._told(b"-")
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _told(self, expected: bytes) -> int:
        data = self._line.recv(_TOLD.size, socket.MSG_WAITALL)
        what, number = _TOLD.unpack(data) if len(data) == _TOLD.size else (b"", 0)
        if what != expected:
            raise RuntimeError(f"{self._name} could not be started; stderr tells why")
        return int(number)


class Commands:
    """Starts ``python -m MODULE`` where the libraries are there already."""

    def __init__(self) -> None:
        self._control, its = socket.socketpair()
        with its:
            self._server = subprocess.Popen(
                # -P: modules of this directory are named after libraries.
                [sys.executable, "-P", str(_SERVER), str(its.fileno())],
                cwd="/",
                # Each command has its own.
                env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
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
        """Start ``python -m MODULE ARGUMENTS``, with nothing to read, in a `session` of its own if so wished."""
        asked = {
            "module": module,
            "arguments": list(arguments),
            "directory": str(directory),
            "environment": dict(environment),
            "session": session,
        }
        ours, its = socket.socketpair()
        with its, Path(os.devnull).open() as stdin:
            streams = [stream.fileno() for stream in (stdin, stdout, stderr)]
            socket.send_fds(self._control, [b"+"], [its.fileno(), *streams])
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
        """Run a command to its end. Raises subprocess.TimeoutExpired, and ends it, if it takes too long."""
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
    # As subprocess reads it.
    return written.read().decode().replace("\r\n", "\n").replace("\r", "\n")


@pytest.fixture(scope="session")
def commands() -> Iterator[Commands]:
    """Starts commands, for tests that do not ask how a process begins."""
    service = Commands()
    yield service
    service.close()

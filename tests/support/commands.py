"""Starts commands fast, by forking a process that has imported the libraries.

`python -m MODULE` spends its first second importing SQLModel and other libraries, and the tests start a thousand
commands. Everything else is as in a new process: directory, environment, arguments and streams are the command's own.
Tests of the start itself (`python -c`, other interpreters, terminals, limits) start new processes.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support.fork_server import Command, ask

_SERVER = Path(__file__).with_name("fork_server.py")
# What submissions, evaluations under pytest, and worker processes import. None of it reads the environment as it is
# imported, and none of it is a pytest plugin.
MODULES = (
    *("doteval.cli.submit", "doteval.cli.show", "doteval.cli.usage", "doteval.submission.submit"),
    *("doteval.local.options", "doteval.local.session", "doteval.local.progress", "doteval.local.xdist"),
    *("doteval.coordination.batches.coordinator", "doteval.coordination.provenance", "doteval.providers.fixtures"),
    *("doteval.evaluators", "doteval.worker.row_task_runner"),
)


class Commands:
    """Starts ``python -m MODULE`` in forks of a fork server that has imported the modules `more`, too."""

    def __init__(self, *more: str) -> None:
        self._more = more
        # A server starts with the first command, perhaps while a test has changed the environment for itself. Each
        # command has its own PYTHONPATH.
        self._environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._server: _Server | None = None

    def start(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        directory: Path,
        environment: Mapping[str, str],
        stdout: IO[Any],
        stderr: IO[Any],
        stdin: IO[Any] | None = None,
        session: bool = False,
    ) -> Command:
        """Start ``python -m MODULE ARGUMENTS``, with an empty stdin by default; `session`: in its own session."""
        if self._server is None:
            self._server = _Server(self._environment, *MODULES, *self._more)
        with Path(os.devnull).open() as nothing:
            return ask(
                self._server.control,
                module,
                arguments,
                directory=directory,
                environment=environment,
                streams=[stream.fileno() for stream in (stdin or nothing, stdout, stderr)],
                session=session,
            )

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
        if self._server is not None:
            self._server.close()


class _Server:
    """A process of `tests.support.fork_server` that has imported the modules `more`, too."""

    def __init__(self, environment: Mapping[str, str], *more: str) -> None:
        self.control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                # -P: modules of tests/support have the names of libraries.
                [sys.executable, "-P", str(_SERVER), str(theirs.fileno()), *more],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        self.control.close()
        self._process.wait(30)


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

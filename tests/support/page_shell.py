"""Runs the commands of a page in one real shell, where `doteval`, `pytest` and `python -m` are forked ready-made.

On PATH are small programs of these names. Each sends its arguments, directory, environment and streams to the tests,
which have the fork server of `tests.support.commands` start the command, and passes signals on. So a page may use
everything that a shell has, such as pipes, jobs and exit codes, and a command still begins in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from doteval.settings import Settings
from tests.support.commands import Commands
from tests.support.project import TEST_PLUGINS, end_leftover_processes

# As wide as the lines of this repository.
COLUMNS = 120
# The exit code of a command that did not end in time, or that ended the shell.
UNFINISHED = -1
_MARK = "\x1e"
_LENGTH = struct.Struct("!I")
_CODE = struct.Struct("!i")
_PROGRAM = f"""#!{sys.executable} -IS
import json, os, signal, socket, struct, sys

name, arguments = os.path.basename(sys.argv[0]), sys.argv[1:]
if name == "python":
    if arguments[:1] != ["-m"]:
        os.execv({sys.executable!r}, [{sys.executable!r}, *arguments])
    name, arguments = arguments[1], arguments[2:]
passed_on = {{signal.SIGINT, signal.SIGTERM, signal.SIGHUP}}
# Until the command runs, they wait.
signal.pthread_sigmask(signal.SIG_BLOCK, passed_on)
request = json.dumps([name, arguments, os.getcwd(), dict(os.environ)]).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["PAGE_SOCKET"])
socket.send_fds(connection, [struct.pack("!I", len(request))], [0, 1, 2])
connection.sendall(request)
(pid,) = struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))
for number in passed_on:
    signal.signal(number, lambda number, frame: os.kill(pid, number))
signal.pthread_sigmask(signal.SIG_UNBLOCK, passed_on)
(code,) = struct.unpack("!i", connection.recv(4, socket.MSG_WAITALL))
sys.exit(code if code >= 0 else 128 - code)
"""


@dataclass(frozen=True)
class Ran:
    """What a command did: both of its streams, its exit code, and how long it took."""

    command: str
    output: str
    code: int
    seconds: float


def run_script(
    steps: Sequence[str | tuple[str, str]], directory: Path, commands: Commands, *, timeout: float
) -> list[Ran]:
    """Run commands in `directory`, and write the files (name, text) between them. Returns what they did.

    If one does not end in time, or ends the shell, it is the last one.
    """
    with tempfile.TemporaryDirectory() as scratch, _programs(Path(scratch), commands) as environment:
        script = ["trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"]
        for number, step in enumerate(steps):
            if isinstance(step, str):
                script += [step, f"PAGE_STATUS=$?; printf '{_MARK}%s %s{_MARK}' $PAGE_STATUS $EPOCHREALTIME"]
                # The next command may ask for it.
                script.append("(exit $PAGE_STATUS)")
            else:
                source = Path(scratch) / f"file{number}"
                source.write_text(step[1], encoding="utf-8")
                name = shlex.quote(step[0])
                script.append(f"mkdir -p $(dirname {name}); cp {source} {name}")
        file = Path(scratch) / "script"
        file.write_text("".join(f"{line}\n" for line in script))
        output = Path(scratch) / "output"
        begun = time.time()
        with output.open("wb") as stream:
            shell = subprocess.Popen(
                ["bash", file],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            try:
                shell.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)
                shell.wait()
        parts = output.read_text(encoding="utf-8", errors="replace").split(_MARK)
    ran = []
    listed = [step for step in steps if isinstance(step, str)]
    for command, text, status in zip(listed, parts[::2], parts[1::2], strict=False):
        code, ended = status.split()
        ran.append(Ran(command, text, int(code), float(ended) - begun))
        begun = float(ended)
    if len(ran) < len(listed):
        ran.append(Ran(listed[len(ran)], parts[-1], UNFINISHED, time.time() - begun))
        # What it started may be what it waits for, and is killed.
        with contextlib.suppress(AssertionError):
            end_leftover_processes(directory)
    else:
        end_leftover_processes(directory)
    return ran


@contextmanager
def _programs(scratch: Path, commands: Commands) -> Iterator[Mapping[str, str]]:
    """The environment of a shell in which doteval's programs are forked, as they are on a user's machine otherwise."""
    programs = scratch / "bin"
    programs.mkdir()
    for name in ("doteval", "pytest", "python"):
        (programs / name).write_text(_PROGRAM)
        (programs / name).chmod(0o700)
    settings = {f"DOTEVAL_{name.upper()}" for name in Settings.model_fields}
    kept = {
        name: value
        for name, value in os.environ.items()
        # pytest prints more where CI is set.
        if name not in {*settings, "CI"} and not name.startswith(("OPENAI_", "PYTEST_", "GITHUB_", "COV_"))
    }
    address = str(scratch / "socket")
    with _Relay(address, commands):
        yield {
            **kept,
            # Other programs of the environment too, as if it were activated.
            "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "COLUMNS": str(COLUMNS),
            "LC_ALL": "C.UTF-8",
            "PAGE_SOCKET": address,
            "PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in TEST_PLUGINS),
        }


class _Relay:
    """Starts the commands that the small programs ask for, and tells them when these end."""

    def __init__(self, address: str, commands: Commands) -> None:
        self._commands = commands
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(address)
        self._server.listen()
        self._starting = threading.Lock()
        self._running: set[int] = set()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()
        with self._starting:
            for pid in self._running:
                _kill(pid)

    def _serve(self) -> None:
        # accept() fails once the socket is shut down.
        with contextlib.suppress(OSError):
            while True:
                connection = self._server.accept()[0]
                threading.Thread(target=self._run, args=[connection], daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection, contextlib.ExitStack() as stack:
            message, descriptors, _, _ = socket.recv_fds(connection, _LENGTH.size, 3)
            stdin, stdout, stderr = (stack.enter_context(open(each, "rb", 0)) for each in descriptors)  # noqa: PTH123
            request = connection.recv(_LENGTH.unpack(message)[0], socket.MSG_WAITALL)
            module, arguments, directory, environment = json.loads(request)
            with self._starting:
                command = self._commands.start(
                    module,
                    arguments,
                    directory=Path(directory),
                    environment=environment,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                )
                self._running.add(command.pid)
            connection.sendall(_CODE.pack(command.pid))
            threading.Thread(target=self._end_with, args=[connection, command.pid], daemon=True).start()
            code = command.wait()
            with self._starting:
                self._running.discard(command.pid)
            # The program may have been killed.
            with contextlib.suppress(OSError):
                connection.sendall(_CODE.pack(code))

    def _end_with(self, connection: socket.socket, pid: int) -> None:
        """Kill a command when its program is killed with SIGKILL, which it cannot pass on."""
        with contextlib.suppress(OSError):
            connection.recv(1)
        with self._starting:
            if pid in self._running:
                _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""Imports the libraries of doteval's commands, and forks a process for each command.

`tests.support.commands` runs this as a script, with the number of a control socket and the names of modules to import
beside the libraries. Each message on the socket brings descriptors: a socket for this command, the command's stdin,
stdout and stderr, and others that the command keeps open. The request is read from the command's socket as JSON; the
answers are "+" with the process id once the command begins, and "-" with its exit code once it has ended.

A command starts doteval's fork server, which would import the same libraries again. In a command forked here,
`subprocess.Popen` asks this server for it instead.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from _pytest.assertion import install_importhook
from _pytest.config import get_config

# Nothing that reads the environment when it is imported, as prometheus_client does.
_LIBRARIES = (
    *("alembic.command", "celery", "click", "kombu", "orjson", "psycopg", "pydantic_settings", "pytest", "redis"),
    *("rich.console", "rich.table", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlmodel"),
    *("tenacity",),
    # What worker processes import.
    *("amqp", "celery.app.control", "celery.app.events", "celery.app.log", "celery.apps.worker"),
    *("celery.backends.base", "celery.concurrency.thread", "celery.events.receiver", "celery.fixups.django"),
    *("celery.worker.autoscale", "celery.worker.components", "celery.worker.consumer", "celery.worker.strategy"),
    *("kombu.pidbox", "kombu.transport.pyamqp", "kombu.transport.redis", "psutil", "trio"),
)
# pytest rewrites the assertions of these plugins and of all that is in them. It warns if they were imported otherwise.
_REWRITTEN = ("anyio", "doteval")
# doteval's own fork server is forked too. A worker process that doteval starts without it is not: its parent has to be
# the process that started it, by which it notices that it is orphaned.
FORK_SERVER_MODULE = "doteval.worker.fork_server_main"
_NOTICE = struct.Struct("!ci")
# A reply socket, three streams, and up to four descriptors that the command keeps open.
_MOST_DESCRIPTORS = 8
# Higher than every number of a descriptor that a command keeps open.
_ABOVE = 500


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


def ask(
    control: socket.socket,
    module: str,
    arguments: Sequence[str],
    *,
    directory: Path,
    environment: Mapping[str, str],
    streams: Sequence[int],
    session: bool,
    kept: Sequence[int] = (),
) -> Command:
    """Ask the server behind `control` to start ``python -m MODULE ARGUMENTS``, in its own session if `session` is true.

    `streams` are the descriptors of its stdin, stdout and stderr; it keeps those in `kept` under the same numbers.
    """
    request = {
        "module": module,
        "arguments": list(arguments),
        "directory": str(directory),
        "environment": dict(environment),
        "session": session,
        "kept": list(kept),
    }
    ours, theirs = socket.socketpair()
    with theirs:
        socket.send_fds(control, [b"+"], [theirs.fileno(), *streams, *kept])
    ours.sendall(json.dumps(request).encode())
    ours.shutdown(socket.SHUT_WR)
    return Command(" ".join([module, *arguments]), ours)


class _Server:
    """Forks the commands that the tests ask for, and the worker processes that those commands ask for."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._controls = {control.fileno(): control}
        # Process ids and reply sockets, by the descriptors that become readable when the processes end.
        self._running: dict[int, tuple[int, socket.socket]] = {}

    def serve(self) -> tuple[dict[str, Any], socket.socket]:
        """Serve until the tests close their end, or are gone. Then end what still runs, and this process.

        Returns in each fork only: the request, and a control socket for the requests of the new process.
        """
        while True:
            for descriptor in select.select([*self._controls, *self._running], [], [])[0]:
                if descriptor in self._running:
                    self._reap(descriptor)
                    continue
                control = self._controls[descriptor]
                try:
                    message, descriptors, _, _ = socket.recv_fds(control, 1, _MOST_DESCRIPTORS)
                except ConnectionError:
                    message = b""
                if not message:
                    if control is self._control:
                        _kill_descendants()
                        sys.exit()
                    self._controls.pop(descriptor).close()
                    continue
                begun = self._fork(descriptors)
                if begun is not None:
                    return begun

    def _fork(self, descriptors: list[int]) -> tuple[dict[str, Any], socket.socket] | None:
        connection = socket.socket(fileno=descriptors[0])
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            for control in self._controls.values():
                control.close()
            for watched, (_, other) in self._running.items():
                os.close(watched)
                other.close()
            return _take_over(connection, descriptors[1:]), _moved_up(theirs)
        theirs.close()
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self._controls[ours.fileno()] = ours
        self._running[os.pidfd_open(pid)] = pid, connection
        return None

    def _reap(self, descriptor: int) -> None:
        pid, connection = self._running.pop(descriptor)
        os.close(descriptor)
        _send(connection, b"-", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        connection.close()


def _kill_descendants() -> None:
    """Kill all processes that descend from this one.

    A service whose tests were killed would serve for good. SIGTERM would have it wait for its rows in flight, which may
    wait for a file of the test.
    """
    found = [os.getpid()]
    for pid in found:
        # Those that have ended have no children.
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    for pid in found[1:]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _take_over(connection: socket.socket, descriptors: list[int]) -> dict[str, Any]:
    """Apply a request to this process: session, directory, environment and descriptors."""
    with connection, connection.makefile("rb") as lines:
        request: dict[str, Any] = json.load(lines)
        if request["session"]:
            os.setsid()
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _send(connection, b"+", os.getpid())
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for number, descriptor in zip([0, 1, 2, *request["kept"]], high, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    _renew_streams()
    return request


def _renew_streams() -> None:
    """Give this process streams that fit its descriptors. Those of the server are of files, which a pipe is not."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        old = getattr(sys, name)
        new = open(old.fileno(), mode, encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115
        if name == "stderr":
            new.reconfigure(line_buffering=True)
        setattr(sys, name, new)
        setattr(sys, f"__{name}__", new)


def _moved_up(control: socket.socket) -> socket.socket:
    # The lower numbers belong to the descriptors that the command keeps open.
    with control:
        return socket.socket(fileno=fcntl.fcntl(control, fcntl.F_DUPFD_CLOEXEC, _ABOVE))


def _redirect_fork_servers(control: socket.socket) -> None:
    """Have the server fork every fork server of doteval's that this process starts from now on."""

    class Popen(subprocess.Popen):  # type: ignore[type-arg]
        def __new__(cls, args: Any, *rest: Any, **options: Any) -> Any:
            if not isinstance(args, list) or args[:2] != [sys.executable, "-m"] or args[2] != FORK_SERVER_MODULE:
                return super().__new__(cls)
            with Path(os.devnull).open() as stdin:
                streams = [stdin.fileno(), 1, 2]
                for position, stream in ((1, options.get("stdout")), (2, options.get("stderr"))):
                    if stream == subprocess.STDOUT:
                        streams[position] = streams[1]
                    elif stream is not None:
                        streams[position] = stream.fileno()
                return ask(
                    control,
                    args[2],
                    args[3:],
                    directory=Path.cwd(),
                    environment=options.get("env") or os.environ,
                    streams=streams,
                    session=options.get("start_new_session", False),
                    kept=options.get("pass_fds", ()),
                )

    subprocess.Popen = Popen  # type: ignore[misc]


def _import(modules: Sequence[str]) -> None:
    """Import modules as pytest imports its plugins."""
    hook = install_importhook(get_config())
    hook.mark_rewrite(*_REWRITTEN)
    for module in modules:
        importlib.import_module(module)
    sys.meta_path.remove(hook)


def _send(connection: socket.socket, what: bytes, number: int) -> None:
    # The test or the command that asked may have ended.
    with contextlib.suppress(ConnectionError):
        connection.sendall(_NOTICE.pack(what, number))


def _run(module: str, arguments: list[str]) -> NoReturn:
    """Run ``python -m MODULE ARGUMENTS`` in this process."""
    sys.path[:0] = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # runpy puts the module's own path first.
    sys.argv = ["-m", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    # Commands begin as in a terminal, also if the tests run under `nohup`.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    _import([*_LIBRARIES, *sys.argv[2:]])
    # The libraries are never freed: without them each collection in a command is shorter, and copies no pages.
    gc.collect()
    gc.freeze()
    command, own_control = _Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    if command["module"] == FORK_SERVER_MODULE:
        own_control.close()
    else:
        _redirect_fork_servers(own_control)
    _run(command["module"], command["arguments"])

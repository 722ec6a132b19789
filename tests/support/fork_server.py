"""Imports the libraries of doteval's commands, and forks a process for each command.

`tests.support.commands` runs this as a script, with the number of a control socket. Each message on it brings four
descriptors: a socket for this command, and the command's stdin, stdout and stderr. The request is read from the
command's socket as JSON; the answers are "+" with the process id once the command begins, and "-" with its exit code
once it has ended.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any, NoReturn

# No modules of doteval: pytest rewrites the assertions of its plugins, which must therefore not be imported before.
_LIBRARIES = (
    *("alembic.command", "celery", "click", "kombu", "orjson", "psycopg", "pydantic_settings", "pytest", "redis"),
    *("rich.console", "rich.table", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlmodel"),
    *("tenacity",),
)
_NOTICE = struct.Struct("!ci")


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request until the control socket is closed. Returns in each fork, with the request."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for descriptor in select.select([control.fileno(), *running], [], [])[0]:
            if descriptor in running:
                pid, connection = running.pop(descriptor)
                os.close(descriptor)
                _send(connection, b"-", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                connection.close()
                continue
            message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
            if not message:
                sys.exit()
            connection = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                control.close()
                for watched, (_, other) in running.items():
                    os.close(watched)
                    other.close()
                return _take_over(connection, descriptors[1:])
            for stream in descriptors[1:]:
                os.close(stream)
            running[os.pidfd_open(pid)] = pid, connection


def _take_over(connection: socket.socket, streams: list[int]) -> dict[str, Any]:
    """Apply a request to this process: session, directory, environment and streams."""
    with connection, connection.makefile("rb") as lines:
        request: dict[str, Any] = json.load(lines)
        if request["session"]:
            os.setsid()
        os.chdir(request["directory"])
        os.environ.clear()
        os.environ.update(request["environment"])
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _send(connection, b"+", os.getpid())
    return request


def _send(connection: socket.socket, what: bytes, number: int) -> None:
    # The test that started the command may have ended.
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
    for library in _LIBRARIES:
        importlib.import_module(library)
    command = _serve(socket.socket(fileno=int(sys.argv[1])))
    _run(command["module"], command["arguments"])

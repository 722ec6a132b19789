"""A process that has imported the libraries of doteval's commands, and becomes a command with each fork.

Run as a script by `tests.support.commands`, with the number of a socket. Each message there brings four descriptors:
a line to the one who asks, and the command's stdin, stdout and stderr. What is asked for comes on the line, as JSON;
back go "+" and the command's process id once it begins, and "-" and its exit code once it has ended.
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

# None of doteval's own modules: each command imports them anew, as pytest demands of a plugin that it rewrites.
_LIBRARIES = (
    *("alembic.command", "celery", "click", "kombu", "orjson", "psycopg", "pydantic_settings", "pytest", "redis"),
    *("rich.console", "rich.table", "sqlalchemy.dialects.postgresql", "sqlalchemy.dialects.sqlite", "sqlmodel"),
    *("tenacity",),
)
_TOLD = struct.Struct("!ci")


def _serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request until nobody can ask any more; returns in each fork, with what it shall be."""
    running: dict[int, tuple[int, socket.socket]] = {}
    while True:
        for descriptor in select.select([control.fileno(), *running], [], [])[0]:
            if descriptor in running:
                pid, line = running.pop(descriptor)
                os.close(descriptor)
                _tell(line, b"-", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                line.close()
                continue
            message, given, _, _ = socket.recv_fds(control, 1, 4)
            if not message:
                sys.exit()
            line = socket.socket(fileno=given[0])
            pid = os.fork()
            if pid == 0:
                control.close()
                for watched, (_, other) in running.items():
                    os.close(watched)
                    other.close()
                return _become(line, given[1:])
            for stream in given[1:]:
                os.close(stream)
            running[os.pidfd_open(pid)] = pid, line


def _become(line: socket.socket, streams: list[int]) -> dict[str, Any]:
    """Take over what was asked for: directory, environment, streams, and a session of its own if so wished."""
    with line, line.makefile("rb") as lines:
        asked: dict[str, Any] = json.load(lines)
        if asked["session"]:
            os.setsid()
        os.chdir(asked["directory"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        _tell(line, b"+", os.getpid())
    return asked


def _tell(line: socket.socket, what: bytes, number: int) -> None:
    # Nobody may wait for it any more.
    with contextlib.suppress(ConnectionError):
        line.sendall(_TOLD.pack(what, number))


def _run(module: str, arguments: list[str]) -> NoReturn:
    """Go on as ``python -m MODULE ARGUMENTS``."""
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

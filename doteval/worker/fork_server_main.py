"""The code that runs in the fork server: ``python -m doteval.worker.fork_server_main CHANNEL``.

It has one thread, opens neither store nor broker, and imports nothing of a user's: what it forks begins as clean as
what the system would start, with the imports made.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

# What a worker process imports before its first row, whatever its evaluations are: not
# `doteval.worker.tasks`, which makes the
# Celery app from the options of one process.
_MODULES = (
    # A plugin of pytest that comes with openai.
    "anyio.pytest_plugin",
    "celery.app.control",
    "celery.app.events",
    "celery.app.log",
    "celery.apps.worker",
    "celery.backends.base",
    "celery.concurrency.thread",
    "celery.events.receiver",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.consumer",
    "celery.worker.strategy",
    "doteval.evaluators",
    "doteval.broker.redis_transport",
    "kombu.pidbox",
    "doteval.worker.remote_control",
    "doteval.worker.celery_consumer",
    "doteval.worker.priority_pool",
    "doteval.worker.lifecycle",
    "doteval.worker.log_setup",
    "doteval.worker.process",
)
_ASKED_TO_LEAVE = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True, slots=True)
class Start:
    """A process to start: what would be after ``python -m``, variables of its environment, and where it prints."""

    command: list[str]
    environment: dict[str, str]
    output: int | None

    def fork(self) -> int:
        """The id of the process that is to be it; 0 there."""
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0 and self.output is not None:
                os.close(self.output)
        return pid

    def begin(self) -> None:
        """Be that process, from here to its end."""
        os.setsid()
        # What has come since the fork is done now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_LEAVE)
        os.environ.update(self.environment)
        if self.output is not None:
            os.dup2(self.output, 1)
            os.dup2(self.output, 2)
            os.close(self.output)
        sys.argv = self.command
        gc.enable()
        runpy.run_module(self.command[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, say so, and serve until the process at the other end is gone."""
    # Who asks a whole group to leave means the worker processes, whose ends are still to be told.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_LEAVE)
    # Nearly all that imports make is there to stay.
    gc.disable()
    for name in _MODULES:
        importlib.import_module(name)
    from doteval.pytest_runtime.pytest_internals import import_plugins

    import_plugins()
    gc.freeze()
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        # Of threads that something started with the interpreter a fork has none, but perhaps their locks: not this way.
        return
    start = serve(Connection(int(sys.argv[1])))
    if start is not None:
        start.begin()


def serve(channel: Connection) -> Start | None:
    """Fork for each request. Returns what to start in the fork, and None when nobody asks any more."""
    # By the descriptor that tells of their ends.
    children: dict[int, int] = {}
    with channel, selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        try:
            _say(channel, "ready")
            while True:
                for key, _ in selector.select():
                    if key.fileobj is not channel:
                        selector.unregister(key.fd)
                        _say(channel, "ended", *_ended(key.fd, children))
                        continue
                    start = _request(channel)
                    try:
                        pid = start.fork()
                    except OSError as error:
                        _say(channel, "failed", error.errno)
                        continue
                    if pid == 0:
                        for descriptor in children:
                            os.close(descriptor)
                        return start
                    descriptor = os.pidfd_open(pid)
                    children[descriptor] = pid
                    selector.register(descriptor, selectors.EVENT_READ)
                    _say(channel, "started", pid)
        except (EOFError, ConnectionError):
            return None


def _ended(descriptor: int, children: dict[int, int]) -> tuple[int, int]:
    """The id of a child that has ended, and how."""
    pid = children.pop(descriptor)
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    return pid, os.waitstatus_to_exitcode(status)


def _request(channel: Connection) -> Start:
    command, environment, has_output = json.loads(channel.recv_bytes())
    return Start(command, environment, recv_handle(channel) if has_output else None)


def _say(channel: Connection, *words: str | int | None) -> None:
    channel.send_bytes(json.dumps(words).encode())


if __name__ == "__main__":
    main()

"""The code that runs in the fork server: ``python -m doteval.worker.fork_server_main CHANNEL``.

The fork server has one thread, opens neither store nor broker, and imports no file of a user. So a forked process is
like one that the system starts, except that its imports are done.
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
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path

# What every worker process imports before its first row. Not `doteval.worker.tasks`, which makes the Celery app from
# the options of one process.
_MODULES = (
    # A pytest plugin that is installed with openai.
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
    "doteval.worker.control_commands",
    "doteval.worker.celery_consumer",
    "doteval.worker.priority_pool",
    "doteval.worker.lifecycle",
    "doteval.worker.log_setup",
    "doteval.worker.process",
)
_LEAVE_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


@dataclass(frozen=True, slots=True)
class Start:
    """A process to start.

    command: the module and its arguments, as after ``python -m``.
    environment: variables to add.
    output: the descriptor that it prints to, None for that of the fork server.
    """

    command: list[str]
    environment: dict[str, str]
    output: int | None

    def fork(self) -> int:
        """Fork the process. Returns its pid, and 0 in the process itself."""
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid != 0 and self.output is not None:
                os.close(self.output)
        return pid

    def begin(self) -> None:
        """Run the command in this process, which was forked for it, to its end."""
        os.setsid()
        # Signals that arrived since the fork are handled now.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _LEAVE_SIGNALS)
        os.environ.update(self.environment)
        if self.output is not None:
            os.dup2(self.output, 1)
            os.dup2(self.output, 2)
            os.close(self.output)
        sys.argv = self.command
        gc.enable()
        runpy.run_module(self.command[0], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import the modules, report that, and fork processes until the other end of the channel is closed."""
    # A signal to the whole process group is meant for the worker processes, whose ends are still to be reported.
    signal.pthread_sigmask(signal.SIG_BLOCK, _LEAVE_SIGNALS)
    # Nearly all objects that imports make are never freed.
    gc.disable()
    _import(_MODULES)
    from doteval.pytest_runtime.pytest_internals import import_plugins

    import_plugins()
    gc.freeze()
    if _has_threads():
        return
    start = serve(Connection(int(sys.argv[1])))
    if start is not None:
        start.begin()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        importlib.import_module(name)


def _has_threads() -> bool:
    """Whether something has started threads. A fork would have their locks, perhaps held, but not the threads."""
    return len(list(Path("/proc/self/task").iterdir())) > 1


def serve(channel: Connection) -> Start | None:
    """Fork, or import modules, for each request. Returns it in the forked process, None in the server at its end."""
    # By pidfd, which is readable once the process has ended: its pid.
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
                    if start is None:
                        if _has_threads():
                            return None
                        _say(channel, "ready")
                        continue
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
    """The pid of a child that has ended, and its exit code."""
    pid = children.pop(descriptor)
    os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    return pid, os.waitstatus_to_exitcode(status)


def _request(channel: Connection) -> Start | None:
    """What is to be started; None if the request was to import modules, which is done."""
    request = json.loads(channel.recv_bytes())
    if isinstance(request, dict):
        _import(request["import"])
        gc.freeze()
        return None
    command, environment, has_output = request
    return Start(command, environment, recv_handle(channel) if has_output else None)


def _say(channel: Connection, *words: str | int | None) -> None:
    channel.send_bytes(json.dumps(words).encode())


if __name__ == "__main__":
    main()

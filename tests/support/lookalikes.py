"""Commands as on machines that look alike: each in a pid namespace of its own, all with one hostname.

So it is with containers of one image on a network of their hosts, and with virtual machines of one image.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.project import Process, Project

HOSTNAME = "look-alike"
_NAMESPACES = ("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
# Process 1 of the namespace.
_RUN = f"""
import os, socket, sys
socket.sethostname({HOSTNAME!r})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def need_namespaces() -> None:
    """Skip the test where nobody may make namespaces; fail on CI."""
    possible = shutil.which("unshare") is not None and os.geteuid() == 0
    if possible and subprocess.run([*_NAMESPACES, "true"], check=False, capture_output=True).returncode == 0:
        return
    reason = "only root with unshare may make a pid namespace"
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, on CI")
    pytest.skip(reason)


@contextmanager
def started_alike(project: Project, module: str, *arguments: str) -> Iterator[Process]:
    """Run ``python -m MODULE ARGUMENTS`` on a machine of its own that looks like the others, until the block ends."""
    program = [*_NAMESPACES, sys.executable, "-c", _RUN, "-m", module, *arguments]
    with project.started(program=program) as command:
        try:
            yield command
        finally:
            if command.poll() is None:
                # unshare does not pass signals on.
                os.kill(inside(command)[1], signal.SIGTERM)
                command.wait(60)


def inside(command: Process) -> dict[int, int]:
    """The processes in the namespace of a command: the pid that the test sees, by the pid in the namespace."""
    found: dict[int, int] = {}
    waiting = [command.pid]
    while waiting:
        parent = waiting.pop()
        for task in Path(f"/proc/{parent}/task").iterdir():
            children = [int(child) for child in (task / "children").read_text().split()]
            waiting += children
            for child in children:
                status = Path(f"/proc/{child}/status").read_text().splitlines()
                (pids,) = (line.split()[1:] for line in status if line.startswith("NSpid:"))
                found[int(pids[-1])] = child
    return found

"""A sandbox for code that a model has written: each run is a process of its own with limits.

It protects the machine from mistakes: endless loops, too much memory, large files, child processes that stay, and use
of the network where Linux lets users make namespaces. It does NOT protect it from attacks: the code runs as the user
who runs the worker, and may read and delete what that user may. If you do not trust the code, run workers in containers
or virtual machines that hold nothing of value.
"""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest

SECONDS = 10
LIMITS = {
    "RLIMIT_CPU": 1,  # seconds
    "RLIMIT_AS": 512 * 2**20,  # bytes of memory
    "RLIMIT_FSIZE": 2**20,  # bytes of a file, also of what is printed
    "RLIMIT_CORE": 0,
}
# The process limits itself before it runs the code, which cannot raise the limits again unless it is root. `preexec_fn`
# of subprocess would do the same, but may hang in a process that has threads, as a worker process has.
LIMITED = f"""
import resource, sys
for name, limit in {LIMITS}.items():
    resource.setrlimit(getattr(resource, name), (limit, limit))
exec(compile(sys.stdin.read(), "answer.py", "exec"), {{"__name__": "__main__"}})
"""


@dataclass(frozen=True)
class Run:
    """How code ended: "passed", or in one line why not; and the end of what it printed."""

    end: str
    output: str


class Sandbox:
    def __init__(self):
        self.runs = 0
        self.prefix = without_network()

    def run(self, code, directory):
        with (directory / "output").open("w+", errors="replace") as output:
            with subprocess.Popen(
                # -I: neither this directory nor variables of the environment change what is imported.
                [*self.prefix, sys.executable, "-I", "-c", LIMITED],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                cwd=directory,
                env={},  # no keys
                text=True,
                # A group of its own, for processes that the code starts.
                start_new_session=True,
            ) as process:
                try:
                    process.communicate(code, timeout=SECONDS)
                except subprocess.TimeoutExpired:
                    pass  # The group is killed in any case.
                finally:
                    kill_group(process.pid)
            output.seek(0)
            printed = output.read()[-2000:]
        self.runs += 1
        return Run(how(process.returncode, printed), printed)

    def get_stats(self):
        return {"runs": self.runs, "without network": self.runs if self.prefix else 0}


def how(code, printed):
    if code == 0:
        return "passed"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}: a limit of time"
    # The last line of a traceback.
    return printed.strip().rpartition("\n")[2] or f"exit code {code}"


def kill_group(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # All of it has ended.


def without_network():
    """The beginning of a command that has no network, empty where this machine does not let us make such a one."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        return command
    return []


@pytest.fixture(scope="session")
def sandbox():
    return Sandbox()

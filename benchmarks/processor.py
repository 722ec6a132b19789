"""Measures the processor time of each thread of a command and of the processes that it starts.

The kernel counts it by thread, with a resolution of 10 ms, as long as the thread lives. It is read ten times a second;
what a thread takes after the last reading is missing. py-spy reads the names of Python threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.commands import CommandFailedError, descendants

PY_SPY = str(Path(sys.executable).parent / "py-spy")

_SAMPLE_SECONDS = 0.1
# Seconds after which the names of threads are read, which stops their process for a moment. Threads that start later
# have no name.
_NAMING_AT = (2.0, 8.0)
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Thread:
    """`user` and `system` are processor seconds; `yielded` and `displaced` count voluntary and involuntary switches."""

    name: str = ""
    user: float = 0.0
    system: float = 0.0
    yielded: int = 0
    displaced: int = 0

    @property
    def seconds(self) -> float:
        return self.user + self.system


@dataclass(slots=True)
class Process:
    name: str
    threads: dict[int, Thread] = field(default_factory=lambda: defaultdict(Thread))

    @property
    def seconds(self) -> float:
        return sum(thread.seconds for thread in self.threads.values())


@dataclass(frozen=True, slots=True)
class ProcessorTime:
    """What a command took: `seconds` of wall time, and its processes, the busiest first.

    `busy` is the share of all processors of the machine that was in use in the middle half of that time.
    """

    seconds: float
    processes: list[Process]
    busy: float


def processor_time(
    command: Sequence[str], directory: Path, environment: Mapping[str, str], *, beside: Sequence[int] = ()
) -> ProcessorTime:
    """Run a command and measure it, and the processes in `beside`, such as a server that it uses.

    Raises CommandFailedError if its exit code is not 0.
    """
    processes: dict[int, Process] = {}
    namings = list(_NAMING_AT)
    idle = [(time.perf_counter(), _idle_seconds())]
    running = subprocess.Popen(command, cwd=directory, env={**os.environ, **environment})
    while running.poll() is None:
        for pid in [running.pid, *descendants(running.pid), *beside]:
            _sample(pid, processes)
        if namings and idle[-1][0] - idle[0][0] > namings[0]:
            del namings[0]
            for pid, process in processes.items():
                _name_threads(pid, process)
        time.sleep(_SAMPLE_SECONDS)
        idle.append((time.perf_counter(), _idle_seconds()))
    if running.returncode != 0:
        raise CommandFailedError(f"{' '.join(command)} ended with {running.returncode}")
    (began, before), (ended, after) = idle[len(idle) // 4], idle[3 * len(idle) // 4]
    busy = 1 - (after - before) / ((ended - began) * (os.cpu_count() or 1))
    by_time = sorted(processes.values(), key=lambda process: -process.seconds)
    return ProcessorTime(idle[-1][0] - idle[0][0], by_time, busy)


def _idle_seconds() -> float:
    """The idle seconds of all processors together since the machine was started."""
    fields = Path("/proc/stat").read_text().split(maxsplit=6)
    return (int(fields[4]) + int(fields[5])) / _TICKS


def _sample(pid: int, processes: dict[int, Process]) -> None:
    try:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        process = processes.setdefault(pid, Process(name))
        # The name changes when a forked process executes another program.
        process.name = name or process.name
        for task in Path(f"/proc/{pid}/task").iterdir():
            # User and system time are the 12th and 13th field after the name in brackets, which may contain anything.
            times = (task / "stat").read_text().rpartition(")")[2].split()
            thread = process.threads[int(task.name)]
            thread.user, thread.system = int(times[11]) / _TICKS, int(times[12]) / _TICKS
            for line in (task / "status").read_text().splitlines():
                if line.startswith("voluntary_ctxt_switches"):
                    thread.yielded = int(line.split()[1])
                elif line.startswith("nonvoluntary_ctxt_switches"):
                    thread.displaced = int(line.split()[1])
    except OSError:
        # The process has just ended; its last reading is kept.
        return


def _name_threads(pid: int, process: Process) -> None:
    found = subprocess.run([PY_SPY, "dump", "--json", "--pid", str(pid)], capture_output=True, check=False)
    if found.returncode != 0:
        # The process is not Python, or has ended.
        return
    for thread in json.loads(found.stdout):
        if thread["os_thread_id"] in process.threads:
            process.threads[thread["os_thread_id"]].name = thread["thread_name"] or ""

"""Run a command and know what it took."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.1


class CommandFailedError(Exception):
    """A command that was to be measured failed; the message is the end of its output."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`seconds` of wall time, `cpu` seconds of the command and all that it started, `peak` memory in MB.

    `peak` is the resident memory of the command's own process; `largest` that of the largest process that it
    started. `output` is what it printed.
    """

    seconds: float
    cpu: float
    peak: float
    largest: float
    output: str


def measured(
    command: Sequence[str], directory: Path, environment: Mapping[str, str] | None = None, *, timeout: float = 1800
) -> Measured:
    """Run the command in the directory. Raises CommandFailedError if it does not end with exit code 0."""
    log = directory / "output.txt"
    with log.open("wb") as output:
        before = processor_seconds()
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **(environment or {})}, stdout=output, stderr=output
        )
        peaks = _Peaks(process.pid)
        peaks.start()
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            peaks.stop()
        seconds = time.perf_counter() - began
        cpu = processor_seconds() - before
    text = log.read_text(errors="replace")
    if code != 0:
        raise CommandFailedError(f"{' '.join(command)} ended with {code}:\n{text[-2000:]}")
    return Measured(seconds, cpu, peaks.own, peaks.largest, text)


def processor_seconds() -> float:
    """What all commands that have ended took of the processor so far, with all that they started and waited for."""
    times = os.times()
    return times.children_user + times.children_system


class _Peaks(threading.Thread):
    """Looks at the memory of a process and of those that it started. The system keeps each one's peak."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.own = self.largest = 0.0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_LOOK_SECONDS):
            try:
                self.own = max(self.own, peak_of(self._pid))
                for child in descendants(self._pid):
                    self.largest = max(self.largest, peak_of(child))
            except OSError:
                # One of them has just ended.
                continue

    def stop(self) -> None:
        self._ended.set()
        self.join()


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that these have."""
    # The kernel's own lists: psutil reads about every process of the machine, which takes ten times as long.
    try:
        found = [
            int(child) for each in Path(f"/proc/{pid}/task").glob("*/children") for child in each.read_text().split()
        ]
    except OSError:
        # It, or one of its threads, has just ended; the others are seen the next time.
        return
    for child in found:
        yield child
        yield from descendants(child)


def peak_of(pid: int) -> float:
    """The most resident memory that a process has had so far, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0

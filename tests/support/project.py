"""A user's directory, and the doteval command in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from doteval.core.results import Record
from doteval.store import Store, WorkerState
from tests.support.commands import Command, Commands
from tests.support.processes import is_stopped

# What the eval files of these tests may say to tell what happened in which process.
_EVENTS = """
import os
_LOG = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def tell(event):
    os.write(_LOG, f"{{os.getpid()}} {{event}}\\n".encode())
"""

# The plugins that our own tests bring, which users need not have, and which take half a second to import.
_WITHOUT_OURS = " ".join(f"-p no:{name}" for name in ("hypothesispytest", "asyncio", "xdist", "xdist.looponfail"))

Process = Command | subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Event:
    pid: int
    what: str


@dataclass
class Project:
    """A directory with eval files. Commands run in it with `environment` added to ours."""

    path: Path
    commands: Commands
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, commands: Commands) -> Project:
        """A project of its own, whatever lies in the directories above."""
        (path / "pytest.ini").write_text("[pytest]\n")
        return cls(path, commands)

    @property
    def log(self) -> Path:
        return self.path / "events.log"

    def write(self, name: str, text: str) -> Path:
        """Write a file of the user's; it may call ``tell("event")``."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".py"):
            text = _EVENTS.format(log=str(self.log)) + textwrap.dedent(text)
        file.write_text(text, encoding="utf-8")
        return file

    def events(self) -> list[Event]:
        """What the eval files told, in order."""
        if not self.log.exists():
            return []
        lines = (line.split(" ", 1) for line in self.log.read_text().splitlines())
        return [Event(int(pid), what) for pid, what in lines]

    def counts(self) -> Counter[str]:
        return Counter(event.what for event in self.events())

    def run(self, *arguments: str, timeout: float = 90, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``doteval ARGUMENTS`` to its end; fails unless it exits with `check` (None: whatever)."""
        done = self.commands.run(
            "doteval", arguments, directory=self.path, environment=self._environment(), timeout=timeout
        )
        if check is not None:
            assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """What ``doteval ARGUMENTS --json`` prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    @contextmanager
    def started(self, *arguments: str, program: Sequence[str] | None = None) -> Iterator[Process]:
        """A doteval command, or another program, in the background and in a session of its own.

        It is ended at the end of the block.
        """
        process: Process
        with (self.path / "output.log").open("a") as output:
            if program is None:
                process = self.commands.start(
                    "doteval",
                    arguments,
                    directory=self.path,
                    environment=self._environment(),
                    stdout=output,
                    stderr=output,
                    session=True,
                )
            else:
                process = subprocess.Popen(
                    program,
                    cwd=self.path,
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def output(self) -> str:
        """What the commands in the background have printed."""
        return (self.path / "output.log").read_text()

    @contextmanager
    def store(self) -> Iterator[Store]:
        store = Store.open(self.environment.get("DOTEVAL_STORAGE", str(self.path / ".doteval" / "doteval.db")))
        try:
            yield store
        finally:
            store.close()

    def records(self, experiment: str) -> dict[str, list[Record]]:
        """The stored records of an experiment by evaluation."""
        with self.store() as store:
            return {
                evaluation.name: list(store.results.records(evaluation.id))
                for evaluation in store.evaluations.of(store.experiments.find(experiment))
            }

    def workers(self) -> list[WorkerState]:
        with self.store() as store:
            return store.workers.all()

    def done(self) -> int:
        """How many rows of all experiments have ended, 0 before there is a store."""
        if "DOTEVAL_STORAGE" not in self.environment and not (self.path / ".doteval" / "doteval.db").exists():
            return 0
        with self.store() as store:
            return sum(overview.counts.finished for overview in store.experiments.overviews())

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "COLUMNS": "200", "PYTEST_ADDOPTS": _WITHOUT_OURS, **self.environment}


@pytest.fixture
def project(tmp_path: Path, commands: Commands) -> Project:
    """A user's directory, with no eval files yet."""
    return Project.begin(tmp_path, commands)


def stand_still(pids: Collection[int]) -> None:
    """Stop processes, until SIGCONT or SIGKILL: once this returns, none of their threads moves."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(is_stopped(pid) for pid in pids), what="the processes' standstill")


def wait_until(condition: Callable[[], Any], *, seconds: float = 30, what: str = "the condition") -> Any:
    """Wait until the condition is true; returns what it gave. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        asked_at = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"{what} did not come true within {seconds:g} s"
        # To look at the store costs milliseconds, which what is waited for may need. But its moment must not be missed.
        time.sleep(min(0.1, max(0.02, 4 * (now - asked_at))))


def leftover_processes(path: Path) -> list[int]:
    """The ids of processes whose working directory is `path`: none may be left behind."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "cwd").readlink() == path:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found

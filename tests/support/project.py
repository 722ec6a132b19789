"""A user's project directory, and doteval commands that run in it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from doteval.core.results import Record
from doteval.store import Store, WorkerState
from tests.support.commands import Command, Commands
from tests.support.processes import is_stopped

# The beginning of each eval file of these tests: tell() logs what happened in which process.
_EVENTS = """
import os
_LOG = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def tell(event):
    os.write(_LOG, f"{{os.getpid()}} {{event}}\\n".encode())
"""

# Plugins that only our own tests need, and which take half a second to import.
TEST_PLUGINS = ("hypothesispytest", "asyncio", "xdist", "xdist.looponfail")

Process = Command | subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Event:
    pid: int
    what: str


@dataclass
class Project:
    """A directory with eval files. Commands run in it with `environment` added to that of the tests."""

    path: Path
    commands: Commands
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, commands: Commands) -> Project:
        """A project that ignores pytest settings in the directories above."""
        (path / "pytest.ini").write_text("[pytest]\n")
        return cls(path, commands)

    @property
    def log(self) -> Path:
        return self.path / "events.log"

    def write(self, name: str, text: str) -> Path:
        """Write a user's file. A Python file may call ``tell("event")``."""
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".py"):
            text = _EVENTS.format(log=str(self.log)) + textwrap.dedent(text)
        file.write_text(text, encoding="utf-8")
        return file

    def events(self) -> list[Event]:
        """The logged events, in order."""
        if not self.log.exists():
            return []
        lines = (line.split(" ", 1) for line in self.log.read_text().splitlines())
        return [Event(int(pid), what) for pid, what in lines]

    def counts(self) -> Counter[str]:
        return Counter(event.what for event in self.events())

    def run(self, *arguments: str, timeout: float = 180, check: int | None = 0) -> subprocess.CompletedProcess[str]:
        """Run ``doteval ARGUMENTS`` to its end; fails unless it exits with `check` (None: any code)."""
        done = self.commands.run(
            "doteval", arguments, directory=self.path, environment=self.process_environment(), timeout=timeout
        )
        if check is not None:
            assert done.returncode == check, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """The JSON that ``doteval ARGUMENTS --json`` prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    @contextmanager
    def started(
        self, *arguments: str, module: str = "doteval", program: Sequence[str] | None = None
    ) -> Iterator[Process]:
        """Run a command in the background and in its own session, until the block ends.

        The command is ``python -m MODULE ARGUMENTS``, with libraries imported, or else a `program` with its arguments.
        """
        process: Process
        with (self.path / "output.log").open("a") as output:
            if program is None:
                process = self.commands.start(
                    module,
                    arguments,
                    directory=self.path,
                    environment=self.process_environment(),
                    stdout=output,
                    stderr=output,
                    session=True,
                )
            else:
                process = subprocess.Popen(
                    program,
                    cwd=self.path,
                    env=self.process_environment(),
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
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def output(self) -> str:
        """The output of all background commands so far."""
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
        """How many rows of all experiments are finished, 0 before there is a store."""
        if "DOTEVAL_STORAGE" not in self.environment and not (self.path / ".doteval" / "doteval.db").exists():
            return 0
        with self.store() as store:
            return sum(overview.counts.finished for overview in store.experiments.overviews())

    def process_environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "COLUMNS": "200",
            "PYTEST_ADDOPTS": " ".join(f"-p no:{name}" for name in TEST_PLUGINS),
            **self.environment,
        }


@pytest.fixture
def project(tmp_path: Path, commands: Commands) -> Iterator[Project]:
    """An empty project. At the end of the test, no process may be left in it."""
    yield Project.begin(tmp_path, commands)
    end_leftover_processes(tmp_path)


def suspend(pids: Collection[int]) -> None:
    """Stop processes with SIGSTOP. Once this returns, none of their threads runs until SIGCONT or SIGKILL."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: all(is_stopped(pid) for pid in pids), what="the stop of all threads")


def wait_until(condition: Callable[[], Any], *, seconds: float = 90, what: str = "the condition") -> Any:
    """Wait until the condition is true; returns its value. Fails after `seconds`.

    The limit is for a test that fails: a busy machine may take ten times as long as an idle one.
    """
    deadline = time.monotonic() + seconds
    while True:
        checked_at = time.monotonic()
        value = condition()
        if value:
            return value
        now = time.monotonic()
        assert now < deadline, f"{what} did not come true within {seconds:g} s"
        # A condition that reads the store takes milliseconds of processor time, so poll it less often, but soon enough.
        time.sleep(min(0.1, max(0.02, 4 * (now - checked_at))))


def leftover_processes(path: Path) -> list[int]:
    """The ids of processes whose working directory is `path`, without this one. Commands must leave none."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if (entry / "cwd").readlink() == path:
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def end_leftover_processes(path: Path) -> None:
    """Wait until no process works in `path`. Fails after a minute and a half, and kills those that are left.

    A worker process whose service was killed leaves once its rows in flight have ended. Those of a test that failed may
    wait for good.
    """
    try:
        wait_until(lambda: not leftover_processes(path), what="the end of all processes of the project")
    except AssertionError as error:
        killed = []
        for pid in leftover_processes(path):
            # It may end meanwhile.
            with suppress(OSError):
                killed.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode())
                os.kill(pid, signal.SIGKILL)
        raise AssertionError(f"{error}; killed: {killed}") from None

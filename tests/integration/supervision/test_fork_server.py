"""A process of the fork server is like one that the system starts."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import IO

import pytest

from doteval.supervision.fork_server import UNKNOWN, ForkServer, ForkServerGoneError, Process, start_fork_server
from doteval.worker import fork_server_main as other_side
from tests.support.project import wait_until

# Prints what it is, and waits for an instruction how to end.
MODULE = """
import json, os, signal, sys, time
names = ("celery.apps.worker", "doteval.worker.process", "doteval.worker.tasks")
names += ("_pytest.unittest", "anyio.pytest_plugin", "wave")
import_done = [name for name in names if name in sys.modules]
print(json.dumps({
    "pid": os.getpid(),
    "parent": os.getppid(),
    "leads": os.getsid(0) == os.getpgrp() == os.getpid(),
    "arguments": sys.argv[1:],
    "variable": os.environ.get("SOMETHING"),
    "imported": import_done,
    "threads": len(os.listdir("/proc/self/task")),
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
    "int": signal.getsignal(signal.SIGINT) == signal.default_int_handler,
    "open": sorted(os.listdir("/proc/self/fd")),
    "name": __name__,
}), flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
sys.exit(int(sys.argv[1]))
"""

Begin = Callable[..., Process]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("forked")
    (directory / "it_is.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        yield directory


@pytest.fixture
def output(directory: Path) -> Iterator[IO[bytes]]:
    (directory / "output").unlink(missing_ok=True)
    with (directory / "output").open("ab", buffering=0) as file:
        yield file


# One for all tests but those that end it: it imports for more than a second.
@pytest.fixture(scope="module")
def fork_server(directory: Path) -> Iterator[ForkServer]:
    with start_fork_server() as fork_server:
        assert fork_server is not None
        wait_until(lambda: fork_server.is_ready(1.0))
        yield fork_server


@pytest.fixture(params=["forked", "spawned"])
def begin(request: pytest.FixtureRequest, output: IO[bytes]) -> Iterator[Begin]:
    """Starts ``python -m COMMAND``, forked or spawned."""
    begun: list[Process] = []

    def forked(*command: str, environment: Mapping[str, str] | None = None) -> Process:
        fork_server: ForkServer = request.getfixturevalue("fork_server")
        return fork_server.fork(command, environment or {}, output)

    def spawned(*command: str, environment: Mapping[str, str] | None = None) -> Process:
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def run(*command: str, environment: Mapping[str, str] | None = None) -> Process:
        process = (forked if request.param == "forked" else spawned)(*command, environment=environment)
        begun.append(process)
        return process

    yield run
    for process in begun:
        process.kill()


def said(directory: Path, processes: int = 1) -> list[dict[str, object]]:
    """What `processes` processes have printed about themselves."""
    output = directory / "output"
    wait_until(lambda: output.read_text().count("\n") >= processes)
    return [json.loads(line) for line in output.read_text().splitlines()]


def test_a_process_has_its_command_environment_and_output(begin: Begin, directory: Path) -> None:
    process = begin("it_is", "7", "more", environment={"SOMETHING": "said"})
    assert process.wait(120) == process.poll() == process.returncode == 7
    (it,) = said(directory)
    assert it["pid"] == process.pid
    assert it["leads"]
    assert it["arguments"] == ["7", "more"]
    assert it["variable"] == "said"
    assert it["name"] == "__main__"
    assert it["threads"] == 1
    assert it["blocked"] == []
    assert it["term"]
    assert it["int"]
    # The last process lists them.
    assert it["open"] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_process_at_any_moment(begin: Begin, number: signal.Signals) -> None:
    process = begin("it_is", "wait")
    process.send_signal(number)
    assert process.wait(120) == -number


def test_one_thread_waits_while_others_poll(begin: Begin) -> None:
    # As when a supervisor waits for its worker processes to leave, and a health check arrives.
    over = threading.Event()
    processes: list[Process] = []

    def look() -> None:
        while not over.is_set():
            for process in processes:
                process.poll()

    with ThreadPoolExecutor(3) as pool:
        lookers = [pool.submit(look) for _ in range(3)]
        try:
            for _ in range(3):
                processes[:] = [begin("it_is", str(code)) for code in (1, 2, 3)]
                assert [process.wait(120) for process in processes] == [1, 2, 3]
        finally:
            over.set()
        for looker in lookers:
            looker.result(30)


def test_a_wait_does_not_block_other_threads(begin: Begin, directory: Path) -> None:
    waited_for = begin("it_is", "wait")
    said(directory)
    other = begin("it_is", "wait")
    said(directory, 2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(waited_for.wait, 60)
        began = time.monotonic()
        assert other.poll() is None
        other.kill()
        assert other.wait(120) == -signal.SIGKILL
        assert not waiting.done()
        # Far less than the other thread waits.
        assert time.monotonic() - began < 30
        waited_for.kill()
        assert waiting.result(30) == -signal.SIGKILL


def test_wait_has_a_timeout(begin: Begin, directory: Path) -> None:
    process = begin("it_is", "wait")
    said(directory)
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    # It has ended already, so this does nothing.
    process.kill()


def test_a_forked_process_has_the_imports_and_no_state_of_another(
    fork_server: ForkServer, output: IO[bytes], directory: Path
) -> None:
    first = fork_server.fork(["it_is", "wait"], {"SOMETHING": "first"}, output)
    second = fork_server.fork(["it_is", "0"], {}, output)
    assert second.wait(120) == 0
    one, other = sorted(said(directory, 2), key=lambda it: it["pid"] != first.pid)
    assert one["imported"] == other["imported"]
    assert one["imported"] == [
        "celery.apps.worker",
        "doteval.worker.process",
        "_pytest.unittest",
        "anyio.pytest_plugin",
    ]
    assert one["parent"] == other["parent"] == fork_server.pid
    assert other["variable"] is None
    assert other["open"] == ["0", "1", "2", "3"]
    first.kill()
    assert first.wait(120) == -signal.SIGKILL
    fork_server.import_too(["wave"])
    wait_until(lambda: fork_server.is_ready(1.0))
    third = fork_server.fork(["it_is", "0"], {}, output)
    assert third.wait(120) == 0
    assert [it["imported"] for it in said(directory, 3) if it["pid"] == third.pid] == [[*one["imported"], "wave"]]


def test_exit_codes_of_processes_that_outlive_the_fork_server_are_unknown(output: IO[bytes], directory: Path) -> None:
    with start_fork_server() as fork_server:
        assert fork_server is not None
        process = fork_server.fork(["it_is", "wait"], {}, output)
        said(directory)
        os.kill(fork_server.pid, signal.SIGKILL)
        with pytest.raises(ForkServerGoneError):
            fork_server.fork(["it_is", "0"], {}, output)
        with pytest.raises(ForkServerGoneError):
            fork_server.is_ready(0.0)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
        process.kill()
        assert process.wait(120) == UNKNOWN


def test_the_fork_server_ignores_signals_to_its_group(fork_server: ForkServer, output: IO[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.killpg(fork_server.pid, number)
    assert fork_server.fork(["it_is", "3"], {}, output).wait(120) == 3


OWNER = """
import time
from doteval.supervision.fork_server import ForkServer
fork_server = ForkServer()
print(fork_server.pid, flush=True)
time.sleep(60)
"""


def test_the_fork_server_ends_with_its_owner(directory: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        owner.kill()
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


def test_the_fork_server_can_be_closed_during_its_imports(directory: Path) -> None:
    fork_server = ForkServer()
    fork_server.close()
    assert not Path(f"/proc/{fork_server.pid}").exists()


def test_the_fork_server_does_not_fork_if_other_threads_run(tmp_path: Path, directory: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
    )
    with start_fork_server({"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])}) as fork_server:
        assert fork_server is not None
        with pytest.raises(ForkServerGoneError):
            wait_until(lambda: fork_server.is_ready(1.0))


@pytest.mark.parametrize("lacking", [(subprocess, "Popen"), (os, "pidfd_open")], ids=lambda it: str(it[1]))
def test_a_command_goes_on_without_a_fork_server(monkeypatch: pytest.MonkeyPatch, lacking: tuple[object, str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no")

    monkeypatch.setattr(*lacking, refuse)
    with start_fork_server() as fork_server:
        assert fork_server is None


def test_a_fork_that_fails_raises_os_error(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    def fork() -> int:
        raise BlockingIOError(errno.EAGAIN, "no")

    monkeypatch.setattr(os, "fork", fork)
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    thread = threading.Thread(target=other_side.serve, args=(theirs,))
    thread.start()
    assert json.loads(ours.recv_bytes()) == ["ready"]
    with (directory / "output").open("wb") as output:
        ours.send_bytes(json.dumps([["it_is"], {}, True]).encode())
        send_handle(ours, output.fileno(), os.getpid())
    assert json.loads(ours.recv_bytes()) == ["failed", errno.EAGAIN]
    assert not [
        file for file in Path("/proc/self/fd").iterdir() if file.exists() and file.samefile(directory / "output")
    ]
    ours.close()
    thread.join(60)
    assert not thread.is_alive()

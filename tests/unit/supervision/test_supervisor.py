"""The supervisor restarts and ends worker processes; stubs stand in for them, and the test moves the clock."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from doteval.core.broker_url import Broker
from doteval.core.states import WorkerEnd
from doteval.errors import StoreError, WorkerError
from doteval.store import Store, WorkerInfo
from doteval.supervision import supervisor as module
from doteval.supervision.supervisor import Supervisor, worker_command
from doteval.supervision.worker_config import VARIABLE, WorkerOptions
from tests.support.clock import Clock

OPTIONS = WorkerOptions(
    paths=("eval_it.py",), storage=None, broker=Broker("redis://:hunter2@host"), queues=("q",), slots=7
)

# Reports that it is ready, and leaves on SIGTERM. Each line in one piece: processes share the file.
REPORT = """
import json, os, signal, sys, time
directory = json.loads(os.environ["DOTEVAL_WORKER"])["journals"]
def report(text):
    with open(f"{directory}/start", "w") as file:
        file.write(text)
with open(f"{directory}/tokens", "w") as file:
    file.write(f"token of {os.getpid()}\\n".replace(" ", "-"))
"""
OBEDIENT = f"""{REPORT}
report('{{"ready": true}}')
def leave(*_):
    os.write(1, b"leaving\\n")
    os._exit(0)
signal.signal(signal.SIGTERM, leave)
os.write(1, f"ready {{os.environ['NUMBER']}}\\n".encode())
while True:
    time.sleep(60)
"""
DEAF = OBEDIENT.replace("signal.signal(signal.SIGTERM, leave)", "signal.signal(signal.SIGTERM, signal.SIG_IGN)")


class Bench:
    """A supervisor of stubs, and its messages."""

    def __init__(self, store: Store, script: str, processes: int, **settings: Any) -> None:
        self.clock = Clock()
        self.said: list[str] = []
        self.printed: list[str] = []
        self.script = script
        self.supervisor = Supervisor(
            OPTIONS,
            processes,
            store,
            on_message=self.said.append,
            output=self.printed.append,
            command=self.command,
            clock=self.clock,
            **settings,
        )

    def command(self, _: WorkerOptions, number: int, __: str) -> list[str]:
        return ["env", f"NUMBER={number}", sys.executable, "-S", "-c", self.script]

    def ready(self, count: int) -> None:
        """Wait until `count` processes have reported, in all."""
        wait_for(lambda: sum(line.startswith("ready") for line in self.printed) >= count)

    def pid(self) -> int:
        (pid,) = self.supervisor.pids()
        return pid


def wait_for(condition: Callable[[], object], seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHECK_SECONDS", 0.01)


Start = Callable[..., Bench]


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    """Starts a supervisor of stubs, which is stopped after the test."""
    benches: list[Bench] = []

    def run(script: str = OBEDIENT, processes: int = 1, **settings: Any) -> Bench:
        bench = Bench(store, script, processes, **settings)
        benches.append(bench)
        bench.supervisor.start()
        return bench

    yield run
    for bench in benches:
        for pid in bench.supervisor.pids():
            os.kill(pid, signal.SIGKILL)
        # A supervisor that the test has stopped has no thread any more.
        if bench.supervisor._thread.is_alive():
            bench.supervisor.stop()


def test_starts_the_given_number_of_processes_each_with_its_number(start: Start) -> None:
    bench = start(processes=3)
    bench.ready(3)
    assert sorted(bench.printed) == ["ready 1", "ready 2", "ready 3"]
    assert len(bench.supervisor.pids()) == 3
    assert bench.supervisor.exit_codes() == []


SEEING = OBEDIENT.replace("os.environ['NUMBER']", "os.environ['NUMBER'] + ' ' + os.environ['CUDA_VISIBLE_DEVICES']")


def test_devices_are_assigned_in_turn_and_kept(start: Start) -> None:
    bench = start(SEEING, processes=3, devices=("4", "GPU-1"))
    bench.ready(3)
    assert sorted(bench.printed) == ["ready 1 4", "ready 2 GPU-1", "ready 3 4"]
    os.kill(bench.supervisor.pids()[1], signal.SIGKILL)
    wait_for(lambda: bench.said)
    bench.clock.now += 100
    bench.ready(4)
    assert bench.printed[3:] == ["ready 2 GPU-1"]


def test_a_killed_process_is_restarted_with_growing_pauses(start: Start) -> None:
    bench = start()
    for died, pause in enumerate([1, 2, 4, 8, 16, 32, 60, 60], start=1):
        bench.ready(died)
        os.kill(bench.pid(), signal.SIGKILL)
        wait_for(lambda died=died: len(bench.said) == died)  # type: ignore[misc]
        assert f"was killed by SIGKILL; the next starts in {pause} s" in bench.said[-1]
        bench.clock.now += pause - 0.01
        bench.clock.asked = 0
        wait_for(lambda: bench.clock.asked >= 3)
        assert bench.supervisor.pids() == []
        bench.clock.now += 0.02
    bench.ready(9)


def test_a_process_that_has_worked_for_a_while_is_replaced_soon(start: Start) -> None:
    bench = start()
    for died, lived in enumerate([0, 100, 100, 0], start=1):
        bench.ready(died)
        bench.clock.now += lived
        os.kill(bench.pid(), signal.SIGKILL)
        wait_for(lambda died=died: len(bench.said) == died)  # type: ignore[misc]
        bench.clock.now += 100
    assert [line.rpartition(" in ")[2] for line in bench.said] == ["1 s", "0.5 s", "0.5 s", "1 s"]


def test_a_process_that_leaves_by_itself_has_refused_work(start: Start) -> None:
    bench = start()
    for died in (1, 2, 3):
        bench.ready(died)
        bench.clock.now += 100
        os.kill(bench.pid(), signal.SIGTERM)
        wait_for(lambda died=died: len(bench.said) == died)  # type: ignore[misc]
        bench.clock.now += 100
    assert [line.partition(" left ")[2] for line in bench.said] == [
        f"with exit code 0; the next starts in {pause} s" for pause in (1, 2, 4)
    ]


@pytest.mark.parametrize(
    "reason", ["it cannot run eval_it: the fixture 'model' raised RuntimeError", "SIGHUP asked it to", "Celery ended"]
)
def test_a_process_that_leaves_by_itself_says_why(start: Start, reason: str) -> None:
    reporting = f"def leave(*_):\n    report(json.dumps({{'ready': True, 'left': {reason!r}}}))"
    bench = start(OBEDIENT.replace("def leave(*_):", reporting))
    bench.ready(1)
    os.kill(pid := bench.pid(), signal.SIGTERM)
    wait_for(lambda: bench.said)
    assert bench.said == [f"worker process {pid} left: {reason}; the next starts in 1 s"]


def test_other_processes_are_not_restarted(start: Start) -> None:
    bench = start(processes=3)
    bench.ready(3)
    before = bench.supervisor.pids()
    os.kill(before[1], signal.SIGKILL)
    wait_for(lambda: bench.said)
    bench.clock.now += 2
    bench.ready(4)
    after = bench.supervisor.pids()
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] != before[1]
    assert sorted(bench.printed)[-2:] == ["ready 2", "ready 3"]


def test_an_exit_is_recorded_and_its_rows_are_released(start: Start, store: Store) -> None:
    bench = start()
    bench.ready(1)
    pid = bench.pid()
    store.workers.begin(WorkerInfo("w", "h", pid, ("q",)), token=f"token-of-{pid}")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: bench.said)
    (worker,) = store.workers.all()
    assert worker.left_at is not None
    assert worker.reason == "was killed by SIGKILL"
    assert (worker.end_cause, worker.exit_code) == (WorkerEnd.KILLED, -9)
    assert store.workers.live() == []


def test_processes_are_restarted_while_the_store_is_unavailable(
    start: Start, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = start()
    bench.ready(1)
    pid = bench.pid()
    store.workers.begin(WorkerInfo("w", "h", pid, ("q",)), token=f"token-of-{pid}")
    end_process = store.workers.end_process
    away = threading.Event()

    def fail(*_: Any, **__: Any) -> None:
        away.set()
        raise StoreError("the store is away")

    monkeypatch.setattr(store.workers, "end_process", fail)
    os.kill(pid, signal.SIGKILL)
    assert away.wait(60)
    wait_for(lambda: bench.said)
    bench.clock.now += 2
    bench.ready(2)
    # The exit is recorded once the store is back.
    assert len(store.workers.live()) == 1
    monkeypatch.setattr(store.workers, "end_process", end_process)
    wait_for(lambda: store.workers.live() == [])


def test_a_start_that_fails_is_tried_again_later(start: Start) -> None:
    bench = start()
    bench.ready(1)
    command = bench.supervisor._command
    bench.supervisor._command = lambda *_: ["/nowhere/python"]
    os.kill(bench.pid(), signal.SIGKILL)
    wait_for(lambda: len(bench.said) == 1)
    bench.clock.now += 1
    wait_for(lambda: len(bench.said) == 2)
    assert "cannot be started: No such file or directory; the next try is in 2 s" in bench.said[1]
    bench.supervisor._command = command
    bench.clock.now += 2
    bench.ready(2)


def test_stop_waits_until_all_processes_have_left(start: Start) -> None:
    slow = OBEDIENT.replace('    os.write(1, b"leaving\\n")', '    time.sleep(0.3); os.write(1, b"leaving\\n")')
    bench = start(slow, processes=2)
    bench.ready(2)
    begin = time.monotonic()
    bench.supervisor.stop()
    assert time.monotonic() - begin >= 0.3
    # They print their last lines, and no process was started in their place.
    assert bench.printed.count("leaving") == 2
    assert bench.supervisor.pids() == []
    assert bench.supervisor.exit_codes() == [0, 0]
    assert bench.said == []


def test_drained_processes_are_asked_once_and_awaited_by_stop(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waits = f"    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n    os._exit(0)"
    bench = start(OBEDIENT.replace("    os._exit(0)", waits), processes=2)
    bench.ready(2)
    pids = bench.supervisor.pids()
    bench.supervisor.drain()
    bench.supervisor.drain()
    assert bench.supervisor.pids() == pids
    gate.touch()
    bench.supervisor.stop()
    # Each prints a line per signal. No process was started in their place.
    assert bench.printed.count("leaving") == 2
    assert bench.supervisor.exit_codes() == [0, 0]


def test_processes_that_do_not_leave_are_killed_and_reported(start: Start) -> None:
    bench = start(DEAF, processes=2)
    bench.ready(2)
    pids = bench.supervisor.pids()
    with pytest.raises(WorkerError, match=r"did not leave within 0\.2 s") as raised:
        bench.supervisor.stop(timeout=0.2)
    assert all(str(pid) in raised.value.message for pid in pids)
    assert bench.supervisor.exit_codes() == [-signal.SIGKILL] * 2


def test_stop_does_not_wait_for_a_pending_restart(start: Start) -> None:
    bench = start()
    bench.ready(1)
    os.kill(bench.pid(), signal.SIGKILL)
    wait_for(lambda: bench.said)
    bench.supervisor.stop()
    bench.clock.now += 1000
    assert bench.supervisor.pids() == []


def test_lines_of_both_streams_are_passed_on_complete_and_in_order(start: Start) -> None:
    script = OBEDIENT.replace(
        "while True:",
        """
for n in range(500):
    os.write(1, f"line {n} begins".encode())
    os.write(1, f" and ends é {n}\\n".encode())
print("on stderr", file=sys.stderr, flush=True)
os.write(1, b"\\xff not text\\n\\n")
os.write(1, b"no newline at the end")
while True:""",
    )
    bench = start(script)
    wait_for(lambda: "� not text" in bench.printed)
    assert bench.printed[1:502] == [f"line {n} begins and ends é {n}" for n in range(500)] + ["on stderr"]
    assert bench.printed[-1] == "� not text"
    bench.supervisor.stop()
    assert bench.printed[-1] == "no newline at the endleaving"


def test_a_process_that_prints_much_is_not_blocked(start: Start) -> None:
    # A pipe would be full in the middle of a row.
    script = """
import os, signal, time
os.set_blocking(1, False)
os.write(1, b"ready\\n" + (b"x" * 99_999 + b"\\n") * 10)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
while True:
    time.sleep(60)
"""
    bench = start(script)
    bench.ready(1)
    wait_for(lambda: len(bench.printed) == 11)
    bench.supervisor.stop()
    assert bench.supervisor.exit_codes() == [7]
    assert [len(line) for line in bench.printed[1:]] == [99_999] * 10


def test_processes_get_options_from_the_environment_and_a_session_of_their_own(start: Start) -> None:
    script = f"""
import os, json
options = json.loads(os.environ[{VARIABLE!r}])
print("ready", options["broker"]["url"], options["supervisor"], os.getsid(0) == os.getpid(), flush=True)
""" + OBEDIENT.replace("ready", "also")
    bench = start(script)
    bench.ready(1)
    assert bench.printed[0] == f"ready redis://:hunter2@host {os.getpid()} True"


def test_the_command_line_of_a_worker_process_holds_no_secret() -> None:
    command = worker_command(OPTIONS, 3, "INFO")
    assert "hunter2" not in " ".join(command)
    assert command == [sys.executable, "-m", "doteval.worker", "worker-3@%h", "INFO"]


# Cannot start: the first one reports why, the second one does not.
BROKEN = f"""{REPORT}
print("no driver", os.environ["NUMBER"], flush=True)
if os.environ["NUMBER"] == "1":
    report('{{"failure": "the driver is missing", "logged": "it said so"}}')
sys.exit(5)
"""


def fail_to_start(bench: Bench, times: int) -> None:
    """Wait until all worker processes have tried to start `times` times."""
    for _ in range(times):
        before, processes = len(bench.said), len(bench.supervisor._replicas)
        bench.clock.now += 100
        wait_for(lambda before=before, all_=processes: len(bench.said) >= before + all_)  # type: ignore[misc]


def test_a_start_is_hopeless_after_three_tries_of_each_process(start: Start) -> None:
    bench = start(BROKEN, processes=2)
    fail_to_start(bench, 2)
    assert bench.supervisor.hopeless_start() is None
    assert [(each.name, each.tries, each.reason) for each in bench.supervisor.failed_starts()] == [
        ("worker-1", 2, "it said so"),
        ("worker-2", 2, "it left with exit code 5"),
    ]
    fail_to_start(bench, 1)
    why, _, *lines = (bench.supervisor.hopeless_start() or "").split("\n")
    assert why.startswith("none of 2 worker processes became ready in 3 tries: it left with exit code 5")
    assert {line.strip() for line in lines} == {"no driver 1", "no driver 2"}


def test_failed_starts_are_recorded_although_the_processes_never_opened_the_store(start: Start, store: Store) -> None:
    bench = start(BROKEN, processes=2)
    fail_to_start(bench, 1)
    found = {worker.info.service.partition("@")[0]: worker for worker in store.workers.all()}
    assert {name: worker.reason for name, worker in found.items()} == {
        "worker-1": "could not start: the driver is missing",
        "worker-2": "could not start: it left with exit code 5",
    }
    assert {worker.end_cause for worker in found.values()} == {WorkerEnd.FAILED_TO_START}


def test_failed_starts_have_growing_pauses_however_long_they_took(start: Start) -> None:
    # Each lives longer than _SHORT_LIFE_SECONDS.
    bench = start(OBEDIENT.replace("report('{\"ready\": true}')", ""))
    for died in (1, 2, 3):
        bench.ready(died)
        bench.clock.now += 100
        os.kill(bench.pid(), signal.SIGKILL)
        wait_for(lambda died=died: len(bench.said) == died)  # type: ignore[misc]
        bench.clock.now += 100
    assert [line.rpartition(" in ")[2] for line in bench.said] == ["1 s", "2 s", "4 s"]


def test_a_start_is_not_hopeless_once_one_process_was_ready(start: Start) -> None:
    bench = start(processes=2)
    bench.ready(2)
    bench.script = BROKEN
    for pid in bench.supervisor.pids():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: len(bench.said) == 2)
    fail_to_start(bench, 4)
    assert min(each.tries for each in bench.supervisor.failed_starts()) >= 4
    assert bench.supervisor.hopeless_start() is None


def test_a_process_that_becomes_ready_has_no_failed_start(start: Start) -> None:
    bench = start(BROKEN)
    fail_to_start(bench, 3)
    assert bench.supervisor.hopeless_start() is not None
    bench.script = OBEDIENT
    bench.clock.now += 100
    bench.ready(1)
    assert bench.supervisor.failed_starts() == []
    assert bench.supervisor.hopeless_start() is None

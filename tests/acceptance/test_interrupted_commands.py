"""Whatever ends a command, no experiment stays `running` for good, and the same command goes on with it."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from doteval.core.stop_signals import rows_finish_first
from tests.support.processes import is_alive
from tests.support.project import Project, wait_until

# The dataset is slow, so that a command can be ended while it is read; the rows are slow too.
EVALUATION = """
import time
from doteval import Score, foreach

def numbers():
    for number in range(12):
        if number == 10:
            (here / "reading").touch()
            time.sleep(SLOW_DATASET)
        yield (number,)

@foreach("number", numbers())
async def eval_slow(number):
    import asyncio
    tell("row")
    await asyncio.sleep(SLOW_ROWS)
    return Score("ok", True, ["accuracy"])
"""

COMMANDS = {
    "pytest": ("pytest", ("-q", "-p", "no:cacheprovider", "eval_it.py", "--experiment", "x")),
    "submit": ("doteval", ("submit", "eval_it.py", "--experiment", "x", "--workers", "1")),
}


@pytest.fixture
def temporary(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for temporary files of the project's commands."""
    directory = tmp_path_factory.mktemp("t")
    project.environment["TMPDIR"] = str(directory)
    return directory


def write(project: Project, *, dataset: float, rows: float) -> None:
    text = f"from pathlib import Path\nhere = Path(__file__).parent\nSLOW_DATASET, SLOW_ROWS = {dataset}, {rows}\n"
    project.write("eval_it.py", text + EVALUATION)


def status(project: Project) -> tuple[str, bool]:
    """The status of the only evaluation, and whether nobody runs it."""
    (evaluation,) = project.json("status", "x")["evaluations"]
    return evaluation["status"], evaluation["abandoned"]


# The worker processes of a killed submitter end their rows in flight first, so that case takes no other course.
@pytest.mark.parametrize(("command", "moment"), [("pytest", "dataset"), ("pytest", "rows"), ("submit", "dataset")])
def test_a_killed_command_is_said_to_run_no_more(project: Project, command: str, moment: str) -> None:
    write(project, dataset=600 if moment == "dataset" else 0, rows=600 if moment == "rows" else 0)
    module, arguments = COMMANDS[command]
    with project.started(*arguments, module=module) as process:
        wait_until((project.path / "reading").exists, what="a dataset that is being read")
        wait_until(lambda: status(project) == ("running", False), what="a running evaluation")
        process.send_signal(signal.SIGKILL)
        process.wait(120)
        wait_until(lambda: status(project) == ("running", True), what="an evaluation that nobody runs")
        assert "by nobody" in project.run("list").stdout
        assert "nobody" in project.run("watch", "x", check=5).stderr
    write(project, dataset=0, rows=0)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--allow-changed")
    assert status(project) == ("completed", False)
    assert len(project.records("x")["eval_slow"]) == 12


@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        ("pytest", signal.SIGINT, 2),
        ("pytest", signal.SIGTERM, 143),
        ("submit", signal.SIGINT, 130),
        ("submit", signal.SIGHUP, 129),
    ],
)
def test_a_signal_while_a_dataset_is_read_leaves_nothing_running(
    project: Project, temporary: Path, command: str, number: signal.Signals, code: int
) -> None:
    write(project, dataset=600, rows=0)
    module, arguments = COMMANDS[command]
    with project.started(*arguments, module=module) as process:
        wait_until((project.path / "reading").exists, what="a dataset that is being read")
        wait_until(lambda: project.json("status", "x")["evaluations"], what="an evaluation")
        process.send_signal(number)
        assert process.wait(120) == code
    assert status(project) == ("cancelled", False)
    assert list(temporary.iterdir()) == []


def test_a_signal_for_the_controller_of_xdist_ends_its_workers_in_order(project: Project, temporary: Path) -> None:
    write(project, dataset=0, rows=600)
    project.write("eval_more.py", (project.path / "eval_it.py").read_text())
    project.environment["PYTEST_ADDOPTS"] = "-p no:hypothesispytest -p no:asyncio"
    command = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "2", "--experiment", "x y")
    for number, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        before = project.counts()["row"]
        with project.started(program=(*command, "eval_it.py", "eval_more.py", "--allow-changed")) as process:
            wait_until(lambda: project.counts()["row"] == before + 2 * 10, what="rows in flight")  # noqa: B023
            # The group, as a closed terminal and `timeout` do; the other one, as `kill` and Docker do.
            (os.killpg if number == signal.SIGHUP else os.kill)(process.pid, number)
            assert process.wait(120) == code
        evaluations = project.json("status", "x y")["evaluations"]
        assert [(each["status"], each["abandoned"]) for each in evaluations] == [("cancelled", False)] * 2
        assert {worker.reason for worker in project.workers()} == {"left"}
        assert [path.name for path in temporary.iterdir() if path.name.startswith("doteval")] == []
        assert "eval_slow: 12 rows are left: interrupted" in project.output()
        assert "To continue, run the command again with --experiment 'x y'" in project.output()
        assert "Error" not in project.output()
    before = project.counts()["row"]
    with project.started(program=(*command, "eval_it.py", "eval_more.py", "--allow-changed")) as process:
        wait_until(lambda: project.counts()["row"] == before + 2 * 10, what="rows in flight")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(120) == 2
    assert "The results so far are stored; to see them: doteval show 'x y'" in project.output()


def test_rows_in_flight_are_stored_after_sigterm_and_the_command_says_how_to_go_on(
    project: Project, temporary: Path
) -> None:
    write(project, dataset=0, rows=3)
    with project.started(
        "submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--concurrency", "4"
    ) as process:
        wait_until(lambda: project.counts()["row"] == 4, what="rows in flight")
        # Twice at once, as `timeout` does it.
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    assert status(project) == ("cancelled", False)
    assert project.done() >= 4
    assert "rows in flight finish first" in project.output()
    assert "Stopped by SIGTERM. Finished rows are stored. To continue: doteval submit eval_it.py" in project.output()
    assert list(temporary.iterdir()) == []
    write(project, dataset=0, rows=0)
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--allow-changed")
    assert len(project.records("x")["eval_slow"]) == 12


def test_a_second_signal_does_not_wait_for_rows_in_flight(project: Project, temporary: Path) -> None:
    write(project, dataset=0, rows=600)
    with project.started("submit", "eval_it.py", "--experiment", "x", "--workers", "1") as process:
        wait_until(lambda: project.counts()["row"], what="rows in flight")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: "a second signal" in project.output(), what="the end of the first signal's second")
        deadline = time.monotonic() + 0.5
        wait_until(lambda: time.monotonic() > deadline, what="a signal that is another wish")
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 143
    assert status(project) == ("cancelled", False)
    (worker,) = project.workers()
    assert worker.reason == "was killed: the command was to end without waiting for rows in flight"
    # Nobody may say of these rows that they have killed a process.
    with closing(sqlite3.connect(project.path / ".doteval" / "doteval.db")) as store:
        assert store.execute("SELECT count(*) FROM attempt").fetchall() == [(0,)]
    assert list(temporary.iterdir()) == []


@pytest.mark.slow(
    "tests/unit/core/test_standard_streams.py and test_rows_in_flight_are_stored_after_sigterm come closest"
)
def test_a_closed_terminal_stops_a_command_in_order_unless_it_ignores_that(project: Project, temporary: Path) -> None:
    write(project, dataset=0, rows=1)
    for experiment, ignoring, code in (("stopped", False, 129), ("nohup", True, 0)):
        pid, terminal = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignoring else signal.SIG_DFL)
            os.chdir(project.path)
            os.environ |= project.environment
            arguments = ("submit", "eval_it.py", "--experiment", experiment, "--workers", "1", "--concurrency", "2")
            os.execv(sys.executable, [sys.executable, "-m", "doteval", *arguments])
        shown = b""
        while b"Experiment" not in shown:
            shown += os.read(terminal, 1000)
        os.close(terminal)
        _, ended = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(ended) == code
        (evaluation,) = project.json("status", experiment)["evaluations"]
        assert evaluation["status"] == ("completed" if ignoring else "cancelled")
    assert list(temporary.iterdir()) == []


def test_a_worker_service_leaves_in_order_after_sighup_and_at_once_after_another_signal(
    project: Project, temporary: Path, redis_url: str
) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    write(project, dataset=0, rows=600)
    for signals, code in (((signal.SIGHUP,), 0), ((signal.SIGHUP, signal.SIGTERM), 143)):
        experiment = f"x{len(signals)}"
        with project.started("worker", ".", "--processes", "1", "--metrics-port", "0") as service:
            wait_until(lambda: any(each.state == "ready" for each in project.workers()), what="a worker")
            if len(signals) == 2:
                project.run("submit", "eval_it.py", "--experiment", experiment, "--detach")
                wait_until(lambda: project.counts()["row"], what="rows in flight")
            answer = rows_finish_first(600)
            said = project.output().count(answer)
            for number in signals:
                # Another wish: half a second after the service has heard of the one before.
                deadline = time.monotonic() + 0.5
                wait_until(lambda: time.monotonic() > deadline, what="a signal that is another wish")  # noqa: B023
                service.send_signal(number)
                wait_until(lambda: project.output().count(answer) > said, what="its answer")  # noqa: B023
            assert service.wait(120) == code
        assert list(temporary.iterdir()) == []
    assert [str(each.reason) for each in project.workers()] == [
        "left",
        "was killed: the command was to end without waiting for rows in flight",
    ]


def test_the_next_start_removes_what_a_killed_one_has_left(project: Project, temporary: Path) -> None:
    write(project, dataset=0, rows=600)
    with project.started("submit", "eval_it.py", "--experiment", "x", "--workers", "1") as process:
        wait_until(lambda: project.counts()["row"], what="rows in flight")
        (pid,) = [worker.info.pid for worker in project.workers()]
        process.send_signal(signal.SIGKILL)
        process.wait(120)
        os.kill(pid, signal.SIGKILL)
        kinds = {path.name.partition(".")[0] for path in temporary.iterdir()}
        assert kinds == {"doteval-redis", "doteval-journals"}
        wait_until(lambda: not is_alive(pid), what="the end of the worker process")
    write(project, dataset=0, rows=0)
    # The Redis of the killed command ends by itself, a moment later.
    wait_until(lambda: sum(1 for _ in open_locks(temporary)) == 0, what="directories that nobody uses")
    project.run("submit", "eval_it.py", "--experiment", "y", "--workers", "1")
    assert list(temporary.iterdir()) == []


def open_locks(temporary: Path) -> Iterator[Path]:
    """The directories that a process uses."""
    for path in temporary.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield path
        finally:
            os.close(descriptor)

"""Submitters die at every moment, run at the same time, and cancel."""

from __future__ import annotations

import signal
import time
from collections import Counter

import pytest

from tests.support.fault_evaluation import (
    CONCURRENCY,
    ROWS,
    check,
    let_go,
    reached,
    ready,
    some_moment,
    submitted,
    write_evaluation,
)
from tests.support.fault_services import RedisServer
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

# A slow dataset whose last rows do not come before `let_go`, so that a test can act in its middle.
STREAM = """
import time
def rows():
    for i in range(ROWS):
        time.sleep(0.01)
        while i >= ROWS - 40 and not os.path.exists("go"):
            time.sleep(0.01)
        yield f"text {i}", str(i % 2)
"""


def test_killed_while_it_streams_rows(project: Project, broker: RedisServer, seed: int) -> None:
    write_evaluation(project, seconds=0.02)
    source = (project.path / "eval_it.py").read_text()
    head, tail = source.split("@foreach", 1)
    dataset = '[(f"text {i}", str(i % 2)) for i in range(240)]'
    assert dataset in tail
    project.write("eval_it.py", head + STREAM.replace("ROWS", "240") + "\n@foreach" + tail.replace(dataset, "rows"))
    with submitted(project, 1) as submitter:
        reached(project, some_moment(seed))
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
        assert project.json("status", "x")["evaluations"][0]["status"] == "running"
        let_go(project)
        project.run("submit", "eval_it.py", "--experiment", "x")
    check(project, "x", in_flight=0)


def test_killed_while_it_publishes(project: Project, broker: RedisServer) -> None:
    """With one row per task publishing takes a while, and the worker processes publish the rest."""
    write_evaluation(project, rows=2000, seconds=0.001)
    with submitted(project, 1, "--rows-per-task", "1") as submitter:
        wait_until(lambda: broker.client.llen("doteval") > 0 or project.done() > 0, what="the first row tasks")
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
        project.run("submit", "eval_it.py", "--experiment", "x", "--rows-per-task", "1")
    check(project, "x", rows=2000, in_flight=0)


def test_killed_while_it_follows(project: Project, broker: RedisServer, seed: int) -> None:
    """The worker processes finish by themselves."""
    write_evaluation(project)
    with submitted(project, 2) as submitter:
        reached(project, some_moment(seed))
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
        project.run("watch", "x")
    check(project, "x", in_flight=0)


def test_two_submitters_at_the_same_moment(project: Project, broker: RedisServer, seed: int) -> None:
    write_evaluation(project, seconds=0.05)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        with (
            project.started("submit", "eval_it.py", "--experiment", "x") as first,
            project.started("submit", "eval_it.py", "--experiment", "x") as second,
        ):
            assert first.wait(120) == 0, project.output()
            assert second.wait(120) == 0, project.output()
    check(project, "x", in_flight=0)


PYTEST = ("-q", "-p", "no:cacheprovider", "eval_it.py", "--experiment", "x")
WAITS = "is being run by pytest (process {pid} on"


def test_one_of_two_simultaneous_pytest_commands_runs_the_rows(project: Project) -> None:
    write_evaluation(project, rows=60, seconds=0.05, held=30)
    with project.started(*PYTEST, module="pytest") as first, project.started(*PYTEST, module="pytest") as second:
        wait_until(
            lambda: any(WAITS.format(pid=each.pid) in project.output() for each in (first, second)),
            what="the waiting of one",
        )
        let_go(project)
        assert first.wait(120) == 0, project.output()
        assert second.wait(120) == 0, project.output()
    assert project.output().count("waiting for its end, to run what it leaves") == 1
    check(project, "x", rows=60, in_flight=0)


def test_a_pytest_command_resumes_at_once_after_a_killed_one(project: Project) -> None:
    # When it is killed, the first rows are stored and the next ones are held, so only rows in flight may run twice.
    write_evaluation(project, rows=60, seconds=0.05, held=30)
    with project.started(*PYTEST, module="pytest") as first:
        reached(project, 30)
        with project.started(*PYTEST, module="pytest") as second:
            wait_until(lambda: WAITS.format(pid=first.pid) in project.output(), what="the second one's waiting")
            first.send_signal(signal.SIGKILL)
            first.wait()
            killed_at = time.monotonic()
            begun = len(project.events())
            wait_until(lambda: len(project.events()) > begun, what="the second one's first rows")
            print(f"went on {time.monotonic() - killed_at:.1f} s after the first one was killed")
            let_go(project)
            assert second.wait(120) == 0, project.output()
    check(project, "x", rows=60, in_flight=CONCURRENCY)


def test_a_submission_resumes_at_once_after_a_killed_pytest_command(project: Project, broker: RedisServer) -> None:
    # When it is killed, the first rows are stored and the next ones are held, so only rows in flight may run twice.
    write_evaluation(project, rows=60, seconds=0.05, held=30)
    with project.started(*PYTEST, module="pytest") as first:
        reached(project, 30)
        first.send_signal(signal.SIGKILL)
        first.wait()
    let_go(project)
    # It counts as live until its heartbeat is late.
    wait_until(lambda: project.workers()[0].age > 3, what="its silence")
    begun = len(project.events())
    with submitted(project, 1) as submitter:
        wait_until(lambda: len(project.events()) > begun, what="the first rows of the submission")
        assert submitter.wait(120) == 0, project.output()
    check(project, "x", rows=60, in_flight=CONCURRENCY)


def test_pytest_leaves_rows_to_worker_processes_and_a_submitter_leaves_them_to_pytest(
    project: Project, broker: RedisServer
) -> None:
    write_evaluation(project, rows=60, seconds=0.05, held=30)
    with submitted(project, 1) as submitter:
        reached(project, 10)
        with project.started(*PYTEST, module="pytest") as waiting:
            wait_until(lambda: "is being run by" in project.output(), what="the waiting of pytest")
            let_go(project)
            assert waiting.wait(120) == 0, project.output()
        assert submitter.wait(120) == 0, project.output()
        check(project, "x", rows=60, in_flight=0)
        project.run("delete", "x", "--yes")
        project.log.unlink()
        (project.path / "go").unlink()
        with project.started(*PYTEST, module="pytest") as runner:
            reached(project, 10)
            with project.started("submit", "eval_it.py", "--experiment", "x") as submitter:
                wait_until(lambda: is_submitted(project), what="the submitter")
                let_go(project)
                assert submitter.wait(120) == 0, project.output()
            assert runner.wait(120) == 0, project.output()
    assert {event.pid for event in project.events() if event.what.startswith("begin")} == {runner.pid}
    check(project, "x", rows=60, in_flight=0)


def test_cancelled_in_the_middle_and_resumed(project: Project, broker: RedisServer, seed: int) -> None:
    write_evaluation(project, seconds=0.5, held=ROWS // 2)
    with project.started("worker", ".", "--processes", "2"):
        ready(project, 2)
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        reached(project, some_moment(seed))
        project.run("cancel", "x")
        let_go(project)
        assert project.json("status", "x")["evaluations"][0]["status"] == "cancelled"

        def ended() -> bool:
            begun = sum(count for what, count in project.counts().items() if what.startswith("begin"))
            return begun == project.done()

        wait_until(ended, what="the rows in flight")
        stopped = project.done()
        assert stopped < ROWS
        project.run("submit", "eval_it.py", "--experiment", "x")
    check(project, "x", in_flight=0)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_embedded_submission_whose_group_is_killed_is_resumed(project: Project, workers: str, seed: int) -> None:
    write_evaluation(project, seconds=0.05)
    with project.started("submit", "eval_it.py", "--experiment", "x", "--workers", workers) as submitter:
        reached(project, some_moment(seed))
        pids = [worker.info.pid for worker in project.workers()]
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
    wait_until(lambda: all(not _lives(pid) for pid in pids), what="the worker processes' leaving")
    project.run("submit", "eval_it.py", "--experiment", "x", "--workers", workers)
    check(project, "x", in_flight=0)


ALONE = ("--workers", "1")


def test_submissions_with_private_brokers_that_share_a_store_keep_their_rows_apart(project: Project) -> None:
    """Each has files that the other's worker processes do not have."""
    for name in ("one", "two"):
        write_evaluation(project, rows=60, seconds=0.05, held=30)
        (project.path / "eval_it.py").rename(project.path / f"eval_{name}.py")
    with (
        project.started("submit", "eval_one.py", "--experiment", "one", *ALONE) as first,
        project.started("submit", "eval_two.py", "--experiment", "two", *ALONE) as second,
    ):
        wait_until(lambda: len([worker for worker in project.workers() if worker.state == "ready"]) == 2, what="both")
        # While rows of both experiments are pending, either submitter could publish them.
        queues = [worker.info.queues for worker in project.workers()]
        let_go(project)
        assert (first.wait(120), second.wait(120)) == (0, 0), project.output()
    assert queues[0] != queues[1]
    # No process left because it received rows of files that it does not have.
    assert len(project.workers()) == 2
    assert {len(project.records(name)["eval_steady"]) for name in ("one", "two")} == {60}
    begun = Counter(event.pid for event in project.events() if event.what.startswith("begin"))
    assert list(begun.values()) == [60, 60]


def test_a_submission_with_a_private_broker_waits_for_another_of_the_same_experiment(project: Project) -> None:
    write_evaluation(project, rows=60, seconds=0.05, held=30)
    with project.started("submit", "eval_it.py", "--experiment", "x", *ALONE) as first:
        reached(project, 10)
        with project.started("submit", "eval_it.py", "--experiment", "x", *ALONE) as second:
            message = "eval_steady of the experiment 'x' is being run by local-1@"
            wait_until(lambda: message in project.output(), what="the waiting of the second")
            assert_shown("another-command-runs-it", project.output())
            let_go(project)
            assert second.wait(120) == 0, project.output()
        assert first.wait(120) == 0, project.output()
    check(project, "x", rows=60, in_flight=0)


def is_submitted(project: Project) -> bool:
    """Whether a submitter has taken the evaluation over, which its run configuration shows."""
    with project.store() as store:
        return store.evaluations.of(store.experiments.find("x"))[0].config.submitted


def _lives(pid: int) -> bool:
    from pathlib import Path

    return Path(f"/proc/{pid}").exists()

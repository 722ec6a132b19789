"""Evaluations run on workers of their queue, and each worker process sees its own device."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict

import pytest
import redis

from doteval.broker.fair_queues import fair_queue_names
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

EVALUATIONS = """
import asyncio
import pytest
from doteval import Score, foreach

@pytest.fixture(scope="session")
def gpu_model():
    tell("+gpu_model")
    yield "g"
    tell("-gpu_model")

@pytest.fixture(scope="session")
def small_model():
    tell("+small_model")
    return "s"

@pytest.mark.doteval(queue="gpu")
@foreach("number", [(number,) for number in range(40)])
async def eval_large(number, gpu_model):
    tell("large")
    await asyncio.sleep({seconds})
    return Score("ok", True, ["accuracy"])

@foreach("number", [(number,) for number in range(40)])
async def eval_small(number, small_model):
    tell("small")
    await asyncio.sleep({seconds})
    return Score("ok", True, ["accuracy"])
"""

DEVICES = """
import os
SEEN_AT_IMPORT = os.environ.get("CUDA_VISIBLE_DEVICES")
import asyncio
from pathlib import Path
from doteval import Result, Score, foreach

@foreach("number", [(number,) for number in range(60)])
async def eval_it(number):
    # The first rows of each process wait until the other one has some too.
    Path(f"began-{os.getpid()}").touch()
    while len(list(Path().glob("began-*"))) < 2:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert SEEN_AT_IMPORT == os.environ["CUDA_VISIBLE_DEVICES"]
    return Result(Score("ok", True, ["accuracy"]), metadata={"device": SEEN_AT_IMPORT, "pid": os.getpid()})
"""


@pytest.fixture
def two_queues(project: Project, redis_url: str) -> Project:
    """A project with an evaluation for the queue gpu and one for the default queue."""
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATIONS.format(seconds=0.02))
    (project.path / "conftest.py").write_text(
        "import os, pytest\n"
        "@pytest.fixture(scope='session', autouse=True)\n"
        "def always():\n"
        "    with open('always.log', 'a') as log:\n"
        "        log.write(f'{os.getpid()}\\n')\n"
    )
    return project


def ready(project: Project, service: str, processes: int = 1) -> bool:
    live = [worker for worker in project.workers() if worker.info.service.startswith(f"{service}-")]
    return sum(worker.state == "ready" for worker in live) >= processes


def pids(project: Project, what: str) -> set[int]:
    """The processes in which an event happened."""
    return {event.pid for event in project.events() if event.what == what}


def pid_of(project: Project, service: str) -> int:
    (pid,) = [worker.info.pid for worker in project.workers() if worker.info.service.startswith(f"{service}-")]
    return pid


def test_rows_and_their_fixtures_run_on_workers_of_their_queue(two_queues: Project) -> None:
    gpu = ("worker", ".", "--queue", "gpu", "--processes", "1", "--name", "gpu")
    other = ("worker", ".", "--processes", "1", "--name", "other")
    with two_queues.started(*gpu), two_queues.started(*other):
        wait_until(lambda: ready(two_queues, "gpu") and ready(two_queues, "other"), what="two ready services")
        two_queues.run("submit", "eval_it.py", "--experiment", "x")
        at_gpu, at_other = pid_of(two_queues, "gpu"), pid_of(two_queues, "other")
        status = two_queues.json("status", "x")
        two_queues.run("drain", "gpu")
    assert two_queues.counts() == {
        "large": 40, "small": 40, "+gpu_model": 1, "-gpu_model": 1, "+small_model": 1
    }  # fmt: skip
    assert pids(two_queues, "large") == pids(two_queues, "+gpu_model") == {at_gpu}
    assert pids(two_queues, "small") == pids(two_queues, "+small_model") == {at_other}
    # The autouse fixture of conftest.py runs in every process.
    assert sorted(map(int, (two_queues.path / "always.log").read_text().split())) == sorted([at_gpu, at_other])
    assert {found["name"]: found["queue"] for found in status["evaluations"]} == {
        "eval_large": "gpu",
        "eval_small": "doteval",
    }
    assert {found["pid"]: found["queues"] for found in status["workers"]} == {at_gpu: ["gpu"], at_other: ["doteval"]}
    assert {found["device"] for found in status["workers"]} == {os.environ.get("CUDA_VISIBLE_DEVICES")}
    assert status["messages_by_queue"] == {"gpu": 0, "doteval": 0}
    loads = {load["fixture"]: load["loads"] for load in two_queues.json("usage", "x")["fixtures"]}
    assert (loads["gpu_model"], loads["small_model"]) == (1, 1)


@pytest.mark.parametrize(
    "queues",
    [
        ("--queue", "gpu,doteval"),
        pytest.param(("--queue", "gpu", "--queue", "doteval"), marks=pytest.mark.slow("the option given once")),
    ],
)
def test_a_worker_may_serve_several_queues(two_queues: Project, queues: tuple[str, ...]) -> None:
    with two_queues.started("worker", ".", *queues, "--processes", "1"):
        two_queues.run("submit", "eval_it.py", "--experiment", "x")
        assert two_queues.json("status", "x")["workers"][0]["queues"] == ["gpu", "doteval"]
    assert {name: len(found) for name, found in two_queues.records("x").items()} == {
        "eval_large": 40,
        "eval_small": 40,
    }


def test_local_workers_serve_all_queues_and_get_one_device_each(project: Project) -> None:
    project.environment["CUDA_VISIBLE_DEVICES"] = "7"
    project.write("eval_it.py", EVALUATIONS.format(seconds=0.02))
    project.write("eval_devices.py", DEVICES)
    project.run("submit", ".", "--experiment", "x", "--queue", "cpu", "--devices", "3,1", "--rows-per-task", "2")
    records = project.records("x")
    assert {name: len(found) for name, found in records.items()} == {
        "eval_large": 40,
        "eval_small": 40,
        "eval_it": 60,
    }
    assert {worker.info.device for worker in project.workers()} == {"1", "3"}
    # The name of the private broker follows each queue.
    served = [[queue.split("@") for queue in worker.info.queues] for worker in project.workers()]
    assert {frozenset(name for name, _ in queues) for queues in served} == {frozenset({"gpu", "cpu"})}
    assert len({private for queues in served for _, private in queues}) == 1
    assert {record.outcome.metadata["device"] for record in records["eval_it"]} == {"1", "3"}


def test_lost_rows_are_published_only_by_workers_of_their_queue(two_queues: Project, redis_url: str) -> None:
    """The submitter has ended, and the broker has lost the row tasks of both evaluations."""
    two_queues.run("submit", "eval_it.py", "--experiment", "x", "--detach")
    with redis.Redis.from_url(redis_url) as broker:
        assert broker.llen("gpu") > 0
        broker.flushdb()
        with two_queues.started("worker", ".", "--processes", "1", "--name", "other"):
            # The worker of its queue publishes and runs the rows of eval_small; those of eval_large wait.
            wait_until(lambda: two_queues.counts()["small"] == 40, what="the rows of eval_small")
            wait_until(
                lambda: two_queues.json("status", "x")["evaluations"][1]["status"] == "completed",
                what="the completion of eval_small",
            )
            large, _ = two_queues.json("status", "x")["evaluations"]
            assert (large["status"], large["rows"]["pending"]) == ("running", 40)
            assert "doteval worker PATH --queue gpu" in large["plan"][0]
            assert two_queues.counts()["+gpu_model"] == two_queues.counts()["large"] == 0
            assert not any(broker.exists(name) for name in fair_queue_names("gpu"))
            with two_queues.started("worker", ".", "--queue", "gpu", "--processes", "1", "--name", "gpu"):
                two_queues.run("watch", "x")
                assert pids(two_queues, "large") == {pid_of(two_queues, "gpu")}
    assert two_queues.counts()["large"] == two_queues.counts()["small"] == 40


def test_a_queue_without_workers_is_reported(two_queues: Project) -> None:
    with two_queues.started("worker", ".", "--processes", "1", "--name", "other"):
        wait_until(lambda: ready(two_queues, "other"), what="a ready worker process")
        submitted = two_queues.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        assert "no worker process listens on the queue 'gpu'" in submitted.stdout + submitted.stderr
        assert_shown("no-worker", submitted.stdout + submitted.stderr)
        assert "queue 'doteval'" not in submitted.stdout + submitted.stderr
        doctor = two_queues.run("doctor", ".", check=1).stdout
        assert "workers on 'gpu': 0 live" in doctor
        assert "doteval worker PATH --queue gpu" in doctor


def test_retry_uses_the_queue_of_the_rows(two_queues: Project) -> None:
    text = EVALUATIONS.format(seconds=0.01)
    two_queues.write("eval_it.py", text.replace('tell("small")', "assert os.path.exists('mended') or number"))
    with two_queues.started("worker", ".", "--queue", "gpu,lab", "--processes", "1"):
        two_queues.run("submit", "eval_it.py", "--experiment", "x", "--queue", "lab")
        before = two_queues.json("status", "x")["evaluations"]
        (two_queues.path / "mended").touch()
        two_queues.run("retry", "x")
        after = two_queues.json("status", "x")["evaluations"]
    assert [(each["rows"]["failed"], each["queue"]) for each in before] == [(0, "gpu"), (1, "lab")]
    assert [(each["rows"]["failed"], each["queue"]) for each in after] == [(0, "gpu"), (0, "lab")]


# Not "prefork": that is Celery's default pool, which doteval replaces by its own.
@pytest.mark.parametrize("pool", ["threads", pytest.param("solo", marks=pytest.mark.slow("the pool of threads"))])
def test_a_plain_celery_worker_serves_all_priorities_of_a_queue(two_queues: Project, pool: str) -> None:
    two_queues.environment["DOTEVAL_PATH"] = "."
    program = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-n", "plain@%h", "-Q", "gpu"]
    with two_queues.started(program=[*program, "--pool", pool, "--concurrency", "2"]):
        wait_until(
            lambda: any(worker.state == "ready" for worker in two_queues.workers()), what="a ready worker process"
        )
        # Low priority has a fair queue of its own, which -Q does not name.
        two_queues.run("submit", "eval_it.py::eval_large", "--experiment", "x", "--priority", "low")
        assert {worker.info.queues for worker in two_queues.workers()} == {("gpu",)}
    assert len(two_queues.records("x")["eval_large"]) == 40
    assert two_queues.counts()["+small_model"] == 0


def test_each_worker_process_keeps_its_device(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", DEVICES)
    with project.started(
        "worker", ".", "--devices", "5,GPU-0a1b", "--concurrency", "2", "--max-rows-per-process", "25"
    ):
        wait_until(lambda: ready(project, "worker", 2), what="two ready worker processes")
        project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
        wait_until(lambda: project.done() >= 4, what="4 rows")
        victim = project.workers()[0]
        os.kill(victim.info.pid, signal.SIGKILL)
        project.run("watch", "x")
        workers = project.json("status", "x")["workers"]
    devices = defaultdict(set)
    for worker in project.workers():
        devices[worker.info.service].add(worker.info.device)
    assert sorted(map(sorted, devices.values())) == [["5"], ["GPU-0a1b"]]
    # One was killed, and together they stored more rows than two processes are allowed to.
    assert len(project.workers()) >= 4
    assert {worker["device"] for worker in workers} <= {"5", "GPU-0a1b"}
    by_pid = {worker.info.pid: worker.info.device for worker in project.workers()}
    records = project.records("x")["eval_it"]
    assert len(records) == 60
    for record in records:
        assert record.outcome.metadata["device"] == by_pid[record.outcome.metadata["pid"]]
    replaced = {worker.info.pid for worker in project.workers() if worker.info.service == victim.info.service}
    assert any(record.outcome.metadata["pid"] in replaced - {victim.info.pid} for record in records)

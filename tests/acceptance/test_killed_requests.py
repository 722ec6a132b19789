"""Requests in flight in processes that are killed count as spent."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.processes import is_alive
from tests.support.project import Process, Project, wait_until

ROWS, CONCURRENCY, KILLS = 80, 10, 3

EVALUATION = """
from doteval import Score, foreach

@foreach("number", [(number,) for number in range(ROWS)], retries=0)
async def eval_it(number, async_openai_client):
    for part in "ab":
        await async_openai_client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"{part} {number:05} [[reply:one two three]]"}]
        )
    return Score("ok", True, [])
""".replace("ROWS", str(ROWS))


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.faults), pytest.param(3, marks=pytest.mark.faults)]
)
def test_no_request_of_a_killed_worker_process_is_lost(project: Project, seed: int) -> None:
    moments = random.Random(seed)
    project.write("eval_it.py", EVALUATION)
    with MockOpenAI(latency=0.3, latency_sigma=0.5, seed=seed) as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "k"}
        command = ("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--concurrency", str(CONCURRENCY))
        with project.started(*command) as submitter:
            for kill in range(1, KILLS + 1):
                enough = kill * 2 * ROWS // (KILLS + 2) + moments.randrange(CONCURRENCY)
                wait_until(lambda at_least=enough: mock.stats()["requests"] >= at_least, what=f"{enough} requests")
                os.kill(moments.choice(wait_until(lambda: live(project), what="a worker process")), signal.SIGKILL)
            assert submitter.wait(120) == 0
        seen = mock.stats()
    (model,) = project.json("usage", "x")["models"]
    spent = model["spent"]
    # A request that was noted just before the kill may not have reached the server.
    assert seen["requests"] <= spent["attempts"] <= seen["requests"] + KILLS * CONCURRENCY
    assert 0 < spent["unfinished"] <= KILLS * CONCURRENCY
    # All other replies were read, with their tokens.
    assert spent["attempts"] - spent["unfinished"] == spent["completion_tokens"] / 3 <= seen["replies"]
    assert model["kept"]["unfinished"] == 0
    assert f"{spent['unfinished']} tr" in project.run("usage", "x").stdout


def live(project: Project) -> list[int]:
    """The worker processes that run. The store learns of the end of one a moment later."""
    return [each.info.pid for each in project.workers() if each.left_at is None and is_alive(each.info.pid)]


SAMPLES = 2
# A script, with another evaluation in another store first.
SCRIPT = """
from doteval import run
from doteval.clients.openai import async_openai_client
from eval_it import eval_it

client = async_openai_client()
run(eval_it, "other", samples=SAMPLES, storage="other.db", async_openai_client=client)
run(eval_it, "x", concurrency=CONCURRENCY, async_openai_client=client)
""".replace("SAMPLES", str(SAMPLES)).replace("CONCURRENCY", str(CONCURRENCY))
CELERY = Path(sys.executable).with_name("celery")
SUBMIT = ("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--concurrency", str(CONCURRENCY))
PYTEST = ("eval_it.py", "--experiment", "x", "--concurrent", str(CONCURRENCY))


@pytest.fixture
def temporary(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory for temporary files of the project's commands."""
    directory = tmp_path_factory.mktemp("t")
    project.environment["TMPDIR"] = str(directory)
    return directory


@contextmanager
def started(project: Project, who: str) -> Iterator[Process]:
    if who == "submit":
        with project.started(*SUBMIT) as process:
            yield process
    elif who == "run":
        with project.started(program=[sys.executable, "run_it.py"]) as process:
            yield process
    elif who == "celery":
        with project.started(program=[str(CELERY), "-A", "doteval.worker", "worker"]) as process:
            wait_until(lambda: [each.state for each in project.workers()] == ["ready"], seconds=120, what="a worker")
            project.run("submit", "eval_it.py", "--experiment", "x", "--detach")
            yield process
    else:
        with project.started(*PYTEST, module="pytest") as process:
            yield process


@pytest.mark.parametrize(
    ("who", "database"),
    [
        ("pytest", "sqlite"),
        pytest.param("pytest", "postgresql", marks=pytest.mark.variant),
        pytest.param("run", "sqlite", marks=pytest.mark.slow("pytest, which is as local")),
        pytest.param("celery", "sqlite", marks=pytest.mark.slow("pytest, which has no supervisor either")),
        # With its worker processes.
        pytest.param("submit", "sqlite", marks=pytest.mark.faults),
    ],
)
def test_no_request_of_a_killed_process_without_a_supervisor_is_lost(
    project: Project, temporary: Path, request: pytest.FixtureRequest, who: str, database: str
) -> None:
    if who == "celery":
        project.environment["DOTEVAL_BROKER"] = request.getfixturevalue("redis_url")
    if database == "postgresql":
        project.environment["DOTEVAL_STORAGE"] = request.getfixturevalue("postgres_url")
    project.write("eval_it.py", EVALUATION)
    project.write("run_it.py", SCRIPT)
    with MockOpenAI(latency=0.3, latency_sigma=0.5, seed=4) as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "k"}
        with started(project, who) as process:
            wait_until(lambda: mock.stats()["requests"] >= ROWS, what=f"{ROWS} requests")
            workers = [each.info.pid for each in project.workers() if each.left_at is None]
            # The supervisor first, so that it cannot store what its worker processes have used.
            for pid in dict.fromkeys([process.pid, *workers]):
                os.kill(pid, signal.SIGKILL)
            process.wait(120)
            wait_until(lambda: not any(map(is_alive, workers)), what="the end of the worker processes")
        seen = mock.stats()["requests"] - (2 * SAMPLES if who == "run" else 0)
        assert list(temporary.glob("doteval-journals.*"))
        spent = spent_by(project)
        in_flight = CONCURRENCY * (2 if who == "submit" else 1)
        assert seen <= spent["attempts"] <= seen + in_flight
        assert 0 < spent["unfinished"] <= in_flight
        assert spent["attempts"] - spent["unfinished"] == spent["completion_tokens"] / 3
        assert not list(temporary.glob("doteval-journals.*"))
        if who == "pytest":
            # They count in budgets, and are counted once.
            before = mock.stats()["requests"]
            assert run_pytest(project, "--max-requests", str(spent["attempts"])).returncode == 1
            assert mock.stats()["requests"] == before
            assert run_pytest(project).returncode == 0
            assert spent_by(project)["attempts"] - spent["attempts"] == mock.stats()["requests"] - before
            assert list(temporary.iterdir()) == []


@pytest.mark.slow("the journal of a killed process")
def test_requests_of_rows_that_ctrl_c_interrupts_are_not_lost(project: Project, temporary: Path) -> None:
    project.write("eval_it.py", EVALUATION)
    with MockOpenAI(latency=0.3, latency_sigma=0.5, seed=4) as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "k"}
        with started(project, "pytest") as process:
            wait_until(lambda: mock.stats()["requests"] >= ROWS, what=f"{ROWS} requests")
            process.send_signal(signal.SIGINT)
            process.wait(120)
        assert mock.stats()["requests"] == spent_by(project)["attempts"]
    assert list(temporary.iterdir()) == []


def spent_by(project: Project) -> dict[str, Any]:
    (model,) = project.json("usage", "x")["models"]
    return dict(model["spent"])


def run_pytest(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return project.commands.run(
        "pytest", [*PYTEST, *arguments], directory=project.path, environment=project.process_environment(), timeout=180
    )

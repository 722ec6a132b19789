"""A model server under ``doteval submit``: all worker processes share one, which ends with them."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.project import Project, leftover_processes, wait_until

EVALUATION = """
import asyncio, os, sys
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
async def served(model_providers):
    tell("setup")
    # Each process waits for the other, which might otherwise find no rows left.
    while open("events.log").read().count("setup") < 2:
        await asyncio.sleep(0.01)
    return await model_providers["server"].setup(
        "m",
        command=[
            *(sys.executable, "-m", "doteval.mock_openai", "--port", "{port}"),
            *("--reply", "echo", "--latency", "0.05"),
        ],
        health="/v1/models",
        max_retries=1,
    )

@foreach("number", [(number,) for number in range(ROWS)])
async def eval_it(number, served):
    reply = await served.model.chat(f"number {number}")
    tell(f"server {served.model.status.pid}")
    text = reply.choices[0].message.content
    return Result(exact_match(text, f"number {number}"), prompt=number, model_response=text)
"""


@pytest.fixture(autouse=True)
def runtime(project: Project) -> Iterator[Path]:
    """A runtime directory for the model servers, with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="dv"))
    project.environment["XDG_RUNTIME_DIR"] = str(directory)
    yield directory
    shutil.rmtree(directory)


def servers(project: Project) -> list[int]:
    """The process ids of the servers that rows called, in order."""
    events = [event.what.split() for event in project.events()]
    return list(dict.fromkeys(int(words[1]) for words in events if words[0] == "server"))


def nothing_left(project: Project, runtime: Path) -> bool:
    keepers = [pid for directory in runtime.glob("doteval-servers/*") for pid in leftover_processes(directory)]
    return not keepers and not leftover_processes(project.path)


def test_two_worker_processes_share_a_server_that_ends_with_them(project: Project, runtime: Path) -> None:
    project.write("eval_it.py", EVALUATION.replace("ROWS", "60"))
    project.run("submit", "eval_it.py", "--experiment", "one", "--workers", "2", "--rows-per-task", "2")
    assert project.counts()["setup"] == 2
    assert len({event.pid for event in project.events() if event.what.startswith("server")}) == 2
    assert len(servers(project)) == 1
    assert nothing_left(project, runtime)
    records = project.records("one")["eval_it"]
    assert len(records) == 60
    assert all(record.outcome.scores[0].value for record in records)
    assert sum(usage.requests for record in records for usage in record.outcome.usage) == 60
    usage = project.json("usage", "one")
    (stats,) = [load["stats"] for load in usage["fixtures"] if load["fixture"] == "served"]
    assert stats["requests"] == 60
    assert len(stats["servers"]) == 1


@pytest.mark.faults
def test_rows_survive_a_killed_server_and_a_killed_worker_process(project: Project, runtime: Path) -> None:
    project.write("eval_it.py", EVALUATION.replace("ROWS", "400"))
    with project.started("submit", "eval_it.py", "--experiment", "one", "--workers", "2", "--concurrency", "4") as ran:
        wait_until(lambda: servers(project) and project.done() > 20, what="some rows")
        os.kill(servers(project)[0], signal.SIGKILL)
        wait_until(lambda: len(servers(project)) == 2, what="a second server")
        workers = {event.pid for event in project.events() if event.what == "setup"}
        os.kill(workers.pop(), signal.SIGKILL)
        assert ran.wait(120) == 0, project.output()
    records = project.records("one")["eval_it"]
    assert len(records) == 400
    assert all(record.outcome.status == "done" for record in records)
    assert len(servers(project)) == 2
    wait_until(lambda: nothing_left(project, runtime))

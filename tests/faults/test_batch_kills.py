"""Whatever dies at whatever step of batch mode: each request is paid once, and each row has one result.

By default one seed of few rows: something dies once at each step, half of the steps with SQLite and half with
PostgreSQL. DOTEVAL_BATCH_ROWS=5000 has each thing die at each step with both, and DOTEVAL_BATCH_SEEDS=20 repeats that
in other orders.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing

import psycopg
import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.batch_runs import check_paid_once, finish, kill_workers, use
from tests.support.batch_steps import STEPS, Steps
from tests.support.project import Process, Project

ROWS = int(os.environ.get("DOTEVAL_BATCH_ROWS", "200"))
SEEDS = range(int(os.environ.get("DOTEVAL_BATCH_SEEDS", "1")))
EVERYTHING_EVERYWHERE = ROWS >= 1000
# The last batches are needed for what happens after the last kill.
BATCHES = 120 if EVERYTHING_EVERYWHERE else 14

# Of a hundred rows, 80 have one call, 18 have three in two rounds, and 2 are streams with two other calls.
EVALUATIONS = """
import asyncio
from doteval import Score, foreach

def message(*parts):
    return [{"role": "user", "content": " ".join(map(str, parts))}]

async def ask(client, *parts):
    reply = await client.chat.completions.create(model="m", messages=message(*parts))
    return reply.choices[0].message.content

@foreach("row", [(number,) for number in range(ROWS * 80 // 100)])
async def eval_one(row, async_openai_client):
    return Score("ok", bool(await ask(async_openai_client, "only", row)), ["mean"])

@foreach("row", [(number,) for number in range(ROWS * 18 // 100)])
async def eval_rounds(row, async_openai_client):
    first = await ask(async_openai_client, "one", row)
    both = await asyncio.gather(
        ask(async_openai_client, "two", row, first), ask(async_openai_client, "three", row, first)
    )
    return Score("ok", all(both), ["mean"])

@foreach("row", [(number,) for number in range(ROWS * 2 // 100)])
def eval_stream(row, openai_client):
    stream = openai_client.chat.completions.create(model="other", messages=message("stream", row), stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    vectors = openai_client.embeddings.create(model="e", input=[text, f"{row}"])
    response = openai_client.responses.create(model="other", input=f"response {row} {text}")
    return Score("ok", bool(response.output_text and len(vectors.data) == 2), ["mean"])
"""
SUBMIT = (
    *("submit", "eval_batches.py", "--experiment", "x", "--batch", "--batch-linger", "1s", "--workers", "2"),
    *("--max-retries", "50", "--max-crashes", "99"),
)
FAULTS = ("line/status:500@0.05", "batch/expire:0.6@0.3", "batches/hangup@0.03", "upload/hangup@0.05")


@pytest.fixture(params=["sqlite", "postgres"])
def cut(request: pytest.FixtureRequest, project: Project) -> Iterator[Callable[[], None]]:
    """Ends the connections of a project to its store. SQLite has none: another one locks it for a while."""
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        project.environment["DOTEVAL_STORAGE"] = url
        yield lambda: _end_connections(url)
        return
    # The process that has come to the step may hold the lock until it goes on.
    with ThreadPoolExecutor(1) as executor:
        locked: list[Future[None]] = []
        yield lambda: locked.append(executor.submit(_lock, project))
        for each in locked:
            each.result(60)


def _end_connections(url: str) -> None:
    others = "datname = current_database() AND pid <> pg_backend_pid()"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")


def _lock(project: Project) -> None:
    file = project.path / ".doteval" / "doteval.db"
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(1.0)
        connection.execute("ROLLBACK")


class Run:
    """A submission that is continued whenever it is killed."""

    def __init__(self, project: Project, cut: Callable[[], None], stack: ExitStack) -> None:
        self._project = project
        self._cut = cut
        self._stack = stack
        self.submitter = self._submit()

    def _submit(self) -> Process:
        return self._stack.enter_context(self._project.started(*SUBMIT))

    def has_ended(self) -> bool:
        return self.submitter.poll() is not None

    def process(self, pid: int) -> None:
        """The process that has come to the step dies."""
        os.kill(pid, signal.SIGKILL)

    def workers(self, pid: int) -> None:
        """All worker processes die."""
        os.kill(pid, signal.SIGKILL)
        kill_workers(self._project)

    def submitter_(self, pid: int) -> None:
        """The submitter dies, and somebody submits again."""
        self.submitter.kill()
        self.submitter.wait(120)
        self.submitter = self._submit()

    def machine(self, pid: int) -> None:
        """The submitter and all worker processes die."""
        self.submitter.kill()
        self.workers(pid)
        self.submitter.wait(120)
        self.submitter = self._submit()

    def connection(self, pid: int) -> None:
        """The connections to the store end."""
        self._cut()


VICTIMS = (Run.process, Run.workers, Run.submitter_, Run.machine, Run.connection)


def plan(source: random.Random, half: bool) -> list[tuple[str, Callable[[Run, int], None]]]:
    """What dies where, one after another. half: which one of few."""
    if EVERYTHING_EVERYWHERE:
        pairs = list(itertools.product(STEPS, VICTIMS))
    else:
        # Each of them at least once.
        victims = [*VICTIMS, *source.sample(VICTIMS, len(STEPS) - len(VICTIMS))]
        pairs = list(zip(STEPS, source.sample(victims, len(victims)), strict=True))[half::2]
    return source.sample(pairs, len(pairs))


@pytest.mark.parametrize("number", SEEDS)
def test_killed_at_every_step(project: Project, cut: Callable[[], None], number: int) -> None:
    source = random.Random(number)
    counts = {"eval_one": ROWS * 80 // 100, "eval_rounds": ROWS * 18 // 100, "eval_stream": ROWS * 2 // 100}
    requests = counts["eval_one"] + 3 * counts["eval_rounds"] + 3 * counts["eval_stream"]
    steps = Steps(project, requests // BATCHES)
    project.write("eval_batches.py", EVALUATIONS.replace("ROWS", str(ROWS)))
    killed: list[str] = []
    with (
        MockOpenAI(batch_latency=1.0, batch_latency_sigma=1.0, faults=FAULTS, seed=number) as mock,
        ExitStack() as stack,
    ):
        use(project, mock)
        run = Run(project, cut, stack)
        planned = plan(source, "DOTEVAL_STORAGE" in project.environment)
        for step, victim in planned:
            with steps.stopped_at(step, run.has_ended) as pid:
                if pid is None:
                    break
                victim(run, pid)
            killed.append(f"{victim.__name__} at {step}")
        finish(run.submitter, project, 600)
        assert len(killed) == len(planned), killed
        check_paid_once(project, mock, requests, counts)

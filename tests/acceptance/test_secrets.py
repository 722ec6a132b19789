"""What the code of authors, SDKs and servers says in an exception reaches the store, and no log or endpoint."""

from __future__ import annotations

import json
import os
import stat
import urllib.error
import urllib.request

import pytest

from doteval.mock_openai.process import MockOpenAI
from tests.support.project import Project, wait_until

# Put together here, so that no line of source that a stack shows holds one.
EVALUATIONS = """
import asyncio, gc, logging, os, threading
import pytest
from openai import AsyncOpenAI
from doteval import Score, foreach

OK, S = Score("ok", True, ["accuracy"]), "SECRET" + "-"

@pytest.fixture(scope="session")
def broken():
    raise RuntimeError(f"cannot log in with {S}session")

@pytest.fixture(scope="module")
def broken_later():
    raise RuntimeError(f"cannot log in with {S}module")

@pytest.fixture(scope="session")
def torn():
    yield 1
    raise RuntimeError(f"cannot log out with {S}teardown")

@pytest.fixture(scope="session")
def client():
    return AsyncOpenAI(api_key=f"{S}key", default_query={"api_key": f"{S}query"})

class Deleted:
    def __del__(self):
        raise ValueError(f"{S}destructor")

async def forgotten():
    raise ValueError(f"{S}task")

def thread():
    raise ValueError(f"{S}thread")

@foreach("i", [0])
def eval_broken(i, broken):
    return OK

@foreach("i", [0])
def eval_broken_later(i, broken_later):
    return OK

@foreach("i", [0])
def eval_thread_and_destructor(i, torn):
    started = threading.Thread(target=thread)
    started.start()
    started.join()
    made = Deleted()
    made.itself = made
    del made
    gc.collect()
    return OK

@foreach("i", [0])
async def eval_task(i):
    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0.05)
    del task
    gc.collect()
    return OK

@foreach("i", [0])
async def eval_query(i, client):
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    return OK

@foreach("text", [f"{S}row"])
def eval_row(text):
    try:
        raise ValueError(text)
    except ValueError:
        logging.getLogger("mine").exception("it failed")
        raise
"""


def body_of(url: str) -> str:
    try:
        with urllib.request.urlopen(url) as reply:
            return str(reply.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()


def test_texts_of_exceptions_are_in_the_store_and_not_in_logs(
    project: Project, redis_url: str, mock_openai: MockOpenAI
) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "OPENAI_BASE_URL": mock_openai.base_url, "OPENAI_API_KEY": "k"}
    project.write("eval_it.py", EVALUATIONS)
    with project.started("worker", ".", "--processes", "1", "--log-format", "json"):
        project.run("submit", "eval_it.py", "--experiment", "x", check=5)
    log = project.output()
    assert "SECRET-" not in log
    # What is said in their place.
    for shown in (
        "the fixture 'broken' raised RuntimeError",
        "the fixture 'broken_later' raised RuntimeError",
        "Exception in thread",
        "Exception ignored in",
        "Task exception was never retrieved",
        "?api_key=***",
        "it failed",
    ):
        assert shown in log
    shown = project.run("show", "x", "--errors", check=None).stdout + project.run("status", "x").stdout
    for text in ("SECRET-session", "SECRET-module", "SECRET-row"):
        assert text in shown


def test_why_a_worker_cannot_start_is_not_said_to_everybody(project: Project, redis_url: str) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", 'raise RuntimeError("cannot log in with " + "SECRET" + "-import")')
    with project.started("worker", ".", "--processes", "1", "--health-port", "0"):
        wait_until(lambda: "next starts in" in project.output(), what="a worker process that cannot start")
        (line,) = [each for each in project.output().splitlines() if "listening on" in each]
        url = json.loads(line)["event"].split()[-1]
        ready = json.loads(body_of(url.replace("/health", "/ready")))
    assert ready["failed_starts"][0]["reason"] == "eval_it.py cannot be collected: RuntimeError"
    assert "SECRET-" not in project.output()
    with project.store() as store:
        assert "SECRET-import" in str(store.workers.all()[0].reason)


@pytest.mark.parametrize("umask", [0o000, 0o022])
def test_only_the_owner_reads_the_store_and_the_cache_whatever_the_umask(
    project: Project, mock_openai: MockOpenAI, umask: int
) -> None:
    project.environment |= {"OPENAI_BASE_URL": mock_openai.base_url, "OPENAI_API_KEY": "k"}
    project.write("eval_it.py", CACHED.format(umask=umask))
    # As an earlier version has made it.
    (project.path / ".doteval").mkdir()
    (project.path / ".doteval").chmod(0o755)
    before = os.umask(umask)
    try:
        project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "1", "--cache")
        project.run("db", "backup", "copy.db")
    finally:
        os.umask(before)
    made = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (project.path / ".doteval").iterdir()}
    assert len(made) >= 2
    assert set(made.values()) == {0o600}
    assert (project.path / ".doteval").stat().st_mode & 0o777 == 0o700
    assert (project.path / "copy.db").stat().st_mode & 0o777 == 0o600
    modes = {event.what for event in project.events()}
    assert modes == {"0o600 0o600 0o600"}


# The umask is that of the process that runs the row, and the files are those of SQLite's journal, too.
CACHED = """
import os
from pathlib import Path
from doteval import Score, foreach
os.umask({umask})

@foreach("i", [0, 1])
async def eval_it(i, async_openai_client):
    message = {{"role": "user", "content": f"hi {{i}}"}}
    await async_openai_client.chat.completions.create(model="m", temperature=0, messages=[message])
    store = Path(__file__).parent / ".doteval"
    tell(" ".join(oct((store / f"doteval.db{{end}}").stat().st_mode & 0o777) for end in ("", "-wal", "-shm")))
    return Score("ok", True, ["accuracy"])
"""

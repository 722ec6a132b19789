"""Processes that have too many files open: each says so, and names `ulimit -n`."""

from __future__ import annotations

import sys

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project
from tests.support.troubleshooting import assert_shown

# The limit of doteval and its worker processes is the first argument.
FEW = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
sys.argv[0] = "doteval"
runpy.run_module("doteval", run_name="__main__")
"""

EVALUATION = """
from doteval import Score, foreach

@foreach("i", [(1,)])
def eval_it(i):
    return Score("ok", True, ["accuracy"])
"""


# SQLite says only that it cannot open its file.
SPENT = """
import errno, os, resource, sys
from doteval.errors import StoreError
from doteval.store import Store
Store.open("results.db").close()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
while True:
    try:
        held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        assert error.errno == errno.EMFILE
        break
for _ in range(int(sys.argv[1])):
    os.close(held.pop())
try:
    Store.open("results.db")
except StoreError as error:
    print(error)
"""


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_result_store_that_cannot_be_opened_for_want_of_descriptors_says_so(project: Project, left: int) -> None:
    with project.started(program=[sys.executable, "-c", SPENT, str(left)]) as process:
        assert process.wait(120) == 0
    assert "cannot be used: this process has too many files open" in project.output()
    assert "`ulimit -n`, which is 64 here" in project.output()


def test_a_command_without_descriptors_for_its_broker_says_so(project: Project) -> None:
    project.write("eval_it.py", EVALUATION)
    with project.started(program=[sys.executable, "-c", FEW, "22", "submit", "eval_it.py"]) as process:
        assert process.wait(120) == 3
    assert "`ulimit -n`, which is 22 here" in project.output()
    assert_shown("too-many-files-open", project.output())


ASKING = """
import os
import aiohttp
from doteval import Score, foreach

@foreach("i", [(i,) for i in range(200)])
async def eval_it(i):
    asked = {"model": "m", "messages": [{"role": "user", "content": str(i)}]}
    async with aiohttp.ClientSession() as session, session.post(os.environ["MOCK"], json=asked) as reply:
        reply.raise_for_status()
        await reply.read()
    return Score("ok", True, ["accuracy"])
"""


@pytest.mark.faults
def test_requests_without_descriptors_are_no_fault_of_their_rows(project: Project) -> None:
    project.write("eval_it.py", ASKING)
    options = ["--experiment", "x", "--workers", "1", "--concurrency", "200", "--max-retries", "0"]
    # Each request holds a connection for so long that the others find no descriptor.
    with MockOpenAI(latency=2.0) as server:
        project.environment["MOCK"] = f"{server.base_url}/chat/completions"
        with project.started(program=[sys.executable, "-c", FEW, "110", "submit", "eval_it.py", *options]) as process:
            assert process.wait(120) == 0, project.output()
        failed = [each.outcome.error for each in project.records("x")["eval_it"] if each.outcome.error is not None]
        assert len(failed) > 50
        assert {each.error_class for each in failed} == {"infrastructure"}
        assert all("`ulimit -n`, which is 110 here" in each.message for each in failed)
        assert "Traceback" not in project.output()
        project.run("retry", "x", "--only", "infrastructure", "--workers", "1", "--concurrency", "50")
    assert project.done() == 200

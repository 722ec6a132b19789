"""Rows whose process is killed pay for no call twice that had ended before: counted at the server."""

from __future__ import annotations

import os
import random
import signal

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project, wait_until

CALLS = 30

ONE_ROW = """
from doteval import Score, foreach

@foreach("topic", [("tea",)])
def eval_talk(topic, openai_client):
    messages = []
    for number in range(CALLS):
        # The reply to the last one does not come before the process is killed.
        held = "[[delay:600x1]]" if number == CALLS - 1 else ""
        messages.append({"role": "user", "content": f"{topic} {number} {held}"})
        reply = openai_client.chat.completions.create(model="m", messages=messages)
        messages.append({"role": "assistant", "content": reply.choices[0].message.content})
    return Score("ok", True, [])
""".replace("CALLS", str(CALLS))

# A row of `eval_gather` has five calls in flight at a time, others have one. Requests are counted by the kind of row.
ALL_KINDS = """
import asyncio
from doteval import Score, foreach

ROWS = [(number,) for number in range(3)]
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]

def ask(client, kind, *parts, **more):
    text = f"[[key:{kind}]] {parts}"
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more)

@foreach("number", ROWS)
async def eval_async(number, async_openai_client):
    for step in range(12):
        await ask(async_openai_client, "async", number, step)
    return Score("ok", True, [])

@foreach("number", ROWS)
async def eval_gather(number, async_openai_client):
    for step in range(3):
        await asyncio.gather(*(ask(async_openai_client, "gather", number, step, part) for part in range(5)))
    return Score("ok", True, [])

@foreach("number", ROWS)
async def eval_stream(number, async_openai_client):
    for step in range(12):
        async for chunk in await ask(async_openai_client, "stream", number, step, stream=True):
            pass
    return Score("ok", True, [])

@foreach("number", ROWS)
def eval_sync(number, openai_client):
    for step in range(4):
        reply = ask(openai_client, "sync", number, step, tools=TOOLS)
        assert reply.choices[0].message.tool_calls
        openai_client.embeddings.create(model="e", input=f"[[key:sync]] {number} {step}")
        openai_client.responses.create(model="r", input=f"[[key:sync]] {number} {step}")
    return Score("ok", True, [])
"""
CALLS_BY_KIND = {"async": 36, "gather": 45, "stream": 36, "sync": 36}
ROWS_AT_ONCE = 3
IN_FLIGHT = {"async": 1, "gather": 5, "stream": 1, "sync": 1}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.variant)])
def stored(request: pytest.FixtureRequest, project: Project) -> Project:
    """A project with a result store of either kind."""
    if request.param == "postgresql":
        project.environment["DOTEVAL_STORAGE"] = str(request.getfixturevalue("postgres_url"))
    return project


def live(project: Project) -> set[int]:
    return {worker.info.pid for worker in project.workers() if worker.left_at is None}


def stored_calls(project: Project) -> int:
    with project.store() as store:
        return store.calls.count([each.id for each in store.evaluations.of(store.experiments.find("x"))])


def test_a_row_that_is_killed_after_29_of_30_calls_asks_one_more(project: Project) -> None:
    project.write("eval_talk.py", ONE_ROW)
    with MockOpenAI(stop_timeout=0.2) as mock:
        project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "k"}
        command = ("eval_talk.py", "--experiment", "x")
        with project.started(*command, module="pytest") as killed:
            wait_until(lambda: mock.stats()["requests"] == CALLS, what="the last request")
            wait_until(lambda: stored_calls(project) == CALLS - 1, what="the other calls in the store")
            os.kill(killed.pid, signal.SIGKILL)
            killed.wait(120)
        with project.started(*command, module="pytest") as again:
            assert again.wait(120) == 0
        assert mock.stats()["requests"] == CALLS + 1
    (evaluation,) = project.json("show", "x", "--row", "0")["evaluations"]
    assert [call["source"] for call in evaluation["calls"]] == ["replay"] * (CALLS - 1) + ["live"]
    assert evaluation["repaid_rows"] == 0


@pytest.mark.parametrize(
    "seed", [1, pytest.param(2, marks=pytest.mark.faults), pytest.param(3, marks=pytest.mark.faults)]
)
def test_killed_worker_processes_cost_only_the_calls_in_flight(stored: Project, seed: int) -> None:
    moments = random.Random(seed)
    total, kills = sum(CALLS_BY_KIND.values()), 3
    stored.write("eval_all.py", ALL_KINDS)
    with MockOpenAI(latency=0.1, latency_sigma=0.5, seed=seed) as mock:
        stored.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "k"}
        command = ("submit", "eval_all.py", "--experiment", "x", "--workers", "1", "--concurrency", str(ROWS_AT_ONCE))
        killed: set[int] = set()
        with stored.started(*command, "--max-crashes", "9") as submitter:
            for kill in range(1, kills + 1):
                enough = kill * total // (kills + 1) + moments.randrange(10)
                wait_until(lambda at_least=enough: mock.stats()["requests"] >= at_least, what=f"{enough} requests")
                (pid,) = wait_until(lambda: live(stored) - killed, what="the next worker process")
                # It has made requests, too.
                seen = mock.stats()["requests"]
                wait_until(lambda more=seen + ROWS_AT_ONCE: mock.stats()["requests"] > more, what="its requests")
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            assert submitter.wait(120) == 0
        sent = {kind: counts["requests"] for kind, counts in mock.stats()["keys"].items()}
    assert sent.keys() == CALLS_BY_KIND.keys()
    for kind, calls in CALLS_BY_KIND.items():
        assert calls <= sent[kind] <= calls + kills * ROWS_AT_ONCE * IN_FLIGHT[kind], kind
    document = stored.json("show", "x")
    assert [each["rows"]["done"] for each in document["evaluations"]] == [3, 3, 3, 3]
    assert [each["repaid_rows"] for each in document["evaluations"]] == [0, 0, 0, 0]

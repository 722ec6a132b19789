"""Batch mode on worker processes: each request is paid once, whatever fails, expires or is killed."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.fault_seeds import FAULT_SEEDS
from tests.support.project import Process, Project, wait_until

# Three calls a row in two rounds, streams, and a sync evaluation of another model. `{row}` makes each prompt a new one.
EVALUATIONS = """
import asyncio
from doteval import Score, foreach

def message(*parts):
    return [{"role": "user", "content": " ".join(map(str, parts))}]

async def ask(client, *parts):
    reply = await client.chat.completions.create(model="m", messages=message(*parts))
    return reply.choices[0].message.content

@foreach("row", [(number,) for number in range(ROWS)])
async def eval_rounds(row, async_openai_client):
    first = await ask(async_openai_client, "one", row)
    both = await asyncio.gather(
        ask(async_openai_client, "two", row, first), ask(async_openai_client, "three", row, first)
    )
    return Score("ok", all(both), ["mean"])

@foreach("row", [(number,) for number in range(ROWS // 10)])
def eval_stream(row, openai_client):
    stream = openai_client.chat.completions.create(model="other", messages=message("stream", row), stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    vectors = openai_client.embeddings.create(model="e", input=[text, f"{row}"])
    response = openai_client.responses.create(model="other", input=f"response {row} {text}")
    return Score("ok", bool(response.output_text and len(vectors.data) == 2), ["mean"])
"""
SUBMIT = ("submit", "eval_batches.py", "--experiment", "x", "--batch", "--workers", "2")


def write(project: Project, mock: MockOpenAI, rows: int) -> int:
    """Write the evaluations. Returns how many requests they make."""
    project.write("eval_batches.py", EVALUATIONS.replace("ROWS", str(rows)))
    project.environment |= {"OPENAI_BASE_URL": mock.base_url, "OPENAI_API_KEY": "sk-a-key-of-the-tests"}
    return 3 * rows + 3 * (rows // 10)


def check(project: Project, mock: MockOpenAI, requests: int, rows: int, *, failed: int = 0) -> None:
    """Each row has one result, and each request was paid once, in a batch."""
    stats = mock.stats()
    assert stats["requests"] == 0, "a request was sent live"
    # The provider has paid-for replies that it has put into no file; nobody can know of them.
    lost = stats["faults"].get("lost", 0)
    assert stats["repeated_replies"] <= lost
    assert requests <= stats["batch"]["replies"] <= requests + lost
    shown = project.json("show", "x")["evaluations"]
    assert [each["rows"]["done"] for each in shown] == [rows - failed, rows // 10]
    used = project.json("usage", "x")["models"]
    for name in ("prompt_tokens", "completion_tokens"):
        spent = sum(each["spent"][name] for each in used)
        # A row that two processes ran at once, as after a kill, may have replayed a call in the run that lost.
        assert sum(each["kept"][name] for each in used) <= spent
        assert lost or spent == stats["batch"][name]


def kill_workers(project: Project) -> None:
    for worker in project.workers():
        if worker.left_at is None:
            # It may have ended since the store was read.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.info.pid, signal.SIGKILL)


def finish(submitter: Process, project: Project, seconds: float = 180) -> None:
    assert submitter.wait(seconds) == 0, project.output()


# What the provider has done is lost with the process that asked for it.
STEPS = {
    "upload": "upload/silentx1",
    "create": "batches/hangupx1",
    "download": "files/hangupx1",
}


@pytest.mark.parametrize(
    "step", [pytest.param("create"), *(pytest.param(step, marks=pytest.mark.faults) for step in ("upload", "download"))]
)
def test_killed_in_the_middle_of_a_request(project: Project, step: str) -> None:
    with MockOpenAI(batch_latency=0.3, faults=(STEPS[step], "line/status:500@0.1")) as mock:
        requests = write(project, mock, rows := 20)
        with project.started(*SUBMIT) as submitter:
            wait_until(lambda: mock.stats()["faults"], what="the fault")
            kill_workers(project)
            finish(submitter, project)
        check(project, mock, requests, rows)
    (evaluation, _) = project.json("show", "x", "--row", "0")["evaluations"]
    assert [call["source"] for call in evaluation["calls"]] == ["batch"] * 3


def _has_come_to(submitter: Process, mock: MockOpenAI, replies: int) -> bool:
    return submitter.poll() is not None or mock.stats()["batch"]["replies"] >= replies


@pytest.mark.faults
@pytest.mark.parametrize("seed", FAULT_SEEDS)
def test_killed_at_random_moments(project: Project, seed: int) -> None:
    moments = random.Random(seed)
    faults = (
        "line/status:500@0.05",
        "line/lost@0.01",
        "batch/expire:0.6@0.3",
        "batches/hangup@0.05",
        "upload/hangup@0.1",
    )
    with MockOpenAI(batch_latency=1.0, batch_latency_sigma=1.0, faults=faults, seed=seed) as mock:
        requests = write(project, mock, rows := 1000)
        kills = 0
        while True:
            with project.started(*SUBMIT, "--max-retries", "20", "--max-crashes", "99") as submitter:
                enough = int(moments.uniform(0.0, 1.0) * requests)
                wait_until(
                    functools.partial(_has_come_to, submitter, mock, enough),
                    seconds=240,
                    what="a part of the replies",
                )
                if submitter.poll() is not None or kills >= 6:
                    finish(submitter, project, 400)
                    break
                kills += 1
                if moments.random() < 0.5:
                    kill_workers(project)
                    continue
                submitter.kill()
                submitter.wait(30)
        check(project, mock, requests, rows)

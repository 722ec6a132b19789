"""Requests in flight in worker processes that are killed count as spent."""

from __future__ import annotations

import os
import random
import signal

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project, wait_until

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
                live = [worker.info.pid for worker in project.workers() if worker.left_at is None]
                os.kill(moments.choice(live), signal.SIGKILL)
            assert submitter.wait(90) == 0
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

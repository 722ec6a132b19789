"""Cache, rate limits and usage of several worker processes agree with the server, and the API key is stored nowhere."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from doteval.mock_openai import MockOpenAI
from tests.support.project import Project, wait_until

SECRET = "sk-planted-3f9c17e4b2"
TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")

EVALUATION = """
from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range(ROWS)])
async def eval_it(number, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", temperature=0, messages=[{"role": "user", "content": PROMPT}]
    )
    AFTERWARDS
    text = reply.choices[0].message.content
    return Result(exact_match(text, text), prompt=number, model_response=text)
"""


CACHED = """
import pytest
from doteval.clients.openai import async_openai_client as make

@pytest.fixture(scope="session")
def async_openai_client():
    return make(cache=True)
"""


def evaluation(prompt: str, rows: int = 200, afterwards: str = "") -> str:
    return EVALUATION.replace("ROWS", str(rows)).replace("PROMPT", prompt).replace("AFTERWARDS", afterwards)


@pytest.fixture
def server(project: Project) -> Iterator[MockOpenAI]:
    with MockOpenAI(latency=0.02) as server:
        project.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": SECRET}
        yield server


def spent(project: Project, experiment: str) -> dict[str, Any]:
    (model,) = project.json("usage", experiment)["models"]
    return dict(model["spent"])


def assert_same_tokens(usage: dict[str, Any], server: MockOpenAI) -> None:
    sent = server.stats()
    assert {name: usage[name] for name in TOKENS} == {name: sent[name] for name in TOKENS}
    assert usage["attempts"] == sent["requests"]


def test_usage_equals_what_the_server_counted_with_retries_and_cache_hits(project: Project, server: MockOpenAI) -> None:
    # 40 prompts: the first request of every fourth fails with 500, that of every fifth hangs up.
    markers = "'[[status:500x1]]' * (number % 4 == 0) + '[[hangupx1]]' * (number % 5 == 0)"
    prompt = f'f"number {{number % 40}} {{{markers}}}"'
    project.write("eval_it.py", evaluation(prompt))
    project.run("submit", "eval_it.py", "--experiment", "one", "--workers", "2", "--cache")
    usage = spent(project, "one")
    assert_same_tokens(usage, server)
    assert server.stats()["distinct_prompts"] == 40
    assert server.stats()["replies"] == 40
    assert (usage["requests"], usage["cache_misses"], usage["cache_hits"]) == (200, 40, 160)
    assert usage["hit_rate"] == 0.8
    assert usage["latency"]["p50"] > 0.015
    # A record holds the tries of its row; rows that waited for another row's reply have none.
    tries = [sum(used.attempts for used in record.outcome.usage) for record in project.records("one")["eval_it"]]
    assert sum(tries) == usage["attempts"]
    assert Counter(tries) == {0: 160, 1: 24, 2: 16}

    server.reset()
    project.run("submit", "eval_it.py", "--experiment", "two", "--workers", "1", "--cache", "--epochs", "1")
    usage = spent(project, "two")
    assert (server.stats()["requests"], usage["attempts"], usage["hit_rate"]) == (0, 0, 1.0)

    project.run("submit", "eval_it.py", "--experiment", "three", "--workers", "2", "--no-cache", "--samples", "50")
    usage = spent(project, "three")
    assert_same_tokens(usage, server)
    assert usage["hit_rate"] is None
    by_worker = project.json("usage", "three", "--by", "worker")["workers"]
    assert sum(worker["models"][0]["spent"]["requests"] for worker in by_worker) == 50


def test_a_submission_sets_the_cache_mode_of_running_workers(
    project: Project, server: MockOpenAI, redis_url: str
) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    source = evaluation('f"{number % 10}"', rows=40)
    project.write("eval_it.py", source)
    project.write("eval_cached.py", CACHED + source)

    def requests(experiment: str, *options: str, file: str = "eval_it.py") -> int:
        server.reset()
        project.run("submit", file, "--experiment", experiment, *options)
        return int(server.stats()["requests"])

    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: any(worker.state == "ready" for worker in project.workers()), what="a ready worker process")
        assert requests("first") == 40
        assert requests("shared", "--cache") == 10
        assert requests("shared again", "--cache") == 0
        assert requests("refreshed", "--refresh-cache") == 10
        assert requests("by the client", file="eval_cached.py") == 0
        assert requests("overridden", "--no-cache", file="eval_cached.py") == 40


def test_equal_requests_of_all_processes_are_made_once(project: Project, redis_url: str) -> None:
    with MockOpenAI(latency=3.0) as server:
        project.environment |= {
            "OPENAI_BASE_URL": server.base_url,
            "OPENAI_API_KEY": SECRET,
            "DOTEVAL_BROKER": redis_url,
        }
        project.write("eval_it.py", evaluation('f"{number % 2}"', rows=100))
        with project.started("worker", ".", "--processes", "2"):
            wait_until(lambda: sum(worker.state == "ready" for worker in project.workers()) >= 2, what="two workers")
            # More row tasks than one process fetches at once, and no reply before the other process has fetched some.
            project.run("submit", "eval_it.py", "--experiment", "one", "--cache", "--rows-per-task", "5")
        assert (server.stats()["requests"], server.stats()["distinct_prompts"]) == (2, 2)
        usage = spent(project, "one")
        assert_same_tokens(usage, server)
        assert (usage["cache_misses"], usage["cache_hits"]) == (2, 98)
    assert len({record.worker for record in project.records("one")["eval_it"]}) == 2


def test_the_api_key_is_stored_nowhere(project: Project, server: MockOpenAI, redis_url: str) -> None:
    """Searches every key and value of the broker's Redis, and all files, those of the private Redis too."""
    rejected = '"[[status:429x1]] [[retry-after:0.01]] " * (number < 4)'
    project.write("eval_it.py", evaluation(f"{rejected} + str(number)", rows=60))
    done = [project.run("submit", "eval_it.py", "--experiment", "local", "--workers", "1", "--cache")]
    project.environment["DOTEVAL_BROKER"] = redis_url
    done.append(project.run("submit", "eval_it.py", "--experiment", "remote", "--detach"))
    with redis.Redis.from_url(redis_url) as client:
        messages = [client.lrange(name, 0, -1) for name in client.keys("*") if client.type(name) == b"list"]
    assert sum(map(len, messages)) > 0
    with project.started("worker", ".", "--processes", "1", "--cache", "--log-level", "DEBUG"):
        done.append(project.run("watch", "remote"))
        done.append(project.run("usage", "remote", "--json"))
        with redis.Redis.from_url(redis_url) as client:
            names = client.keys("*")
            values = [client.dump(name) for name in names]
            texts = [client.hgetall(name) for name in names if client.type(name) == b"hash"]
    assert any(name.startswith(b"doteval:cache:reply:") for name in names)
    assert any(name.startswith(b"doteval:rate_limit:") for name in names)
    secret = SECRET.encode()
    for content in (
        *names,
        *values,
        repr((texts, messages)).encode(),
        *(f"{ran.stdout}{ran.stderr}".encode() for ran in done),
    ):
        assert secret not in (content or b"")
    files = [file for file in project.path.rglob("*") if file.is_file()]
    assert {"doteval.db", "cache.db", "output.log"} <= {file.name for file in files}
    assert [file for file in files if secret in file.read_bytes()] == []
    # The search does find a planted key.
    (project.path / "planted").write_bytes(b"x" * 99 + secret)
    assert [file.name for file in files_with(project.path, secret)] == ["planted"]


def files_with(directory: Path, content: bytes) -> list[Path]:
    return [file for file in directory.rglob("*") if file.is_file() and content in file.read_bytes()]


@pytest.mark.slow("tests/integration/clients/rate_limits/test_shared_rate_limits.py, without worker processes")
def test_all_processes_keep_the_rate_limit_of_the_server(project: Project) -> None:
    with MockOpenAI(rate_limit=60, latency=0.05) as server:
        project.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": SECRET}
        project.write("eval_it.py", evaluation('f"{number}"', rows=500))
        project.run("submit", "eval_it.py", "--experiment", "one", "--workers", "2", "--concurrency", "20")
        stats = server.stats()
        usage = spent(project, "one")
        assert_same_tokens(usage, server)
        # Until replies report the limit, each request in flight may be rejected once.
        assert stats["rejected"] <= 2 * 20
        assert usage["waited"] > 10
    assert all(record.outcome.status == "done" for record in project.records("one")["eval_it"])


@pytest.mark.faults
def test_usage_of_a_killed_worker_process_is_counted(project: Project, server: MockOpenAI, redis_url: str) -> None:
    """Its rows had their replies but were not stored when it was killed."""
    project.environment["DOTEVAL_BROKER"] = redis_url
    afterwards = """
    while number >= 40 and not Path("go").exists():
        tell(number)
        await asyncio.sleep(1)"""
    source = evaluation('f"{number} [[reply:one two]]"', rows=60, afterwards=afterwards)
    project.write("eval_it.py", f"import asyncio\nfrom pathlib import Path\n{source}")

    def waiting(pid: int) -> int:
        """How many rows of a process have their reply and are waiting."""
        rows = {event.what for event in project.events() if event.pid == pid}
        return len(rows)

    with project.started("worker", ".", "--processes", "2", "--concurrency", "5"):
        wait_until(lambda: sum(worker.state == "ready" for worker in project.workers()) >= 2, what="two workers")
        project.run("submit", "eval_it.py", "--experiment", "one", "--detach")
        pids = [worker.info.pid for worker in project.workers()]
        # All rows in flight in this process have their reply.
        pid = wait_until(lambda: next((pid for pid in pids if waiting(pid) == 5), None), what="a process that waits")
        os.kill(pid, signal.SIGKILL)
        (project.path / "go").touch()
        project.run("watch", "one")
    usage = spent(project, "one")
    assert server.stats()["requests"] > 60
    assert_same_tokens(usage, server)

"""Operating a worker service: health, metrics, recycling, draining, running as process 1."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from doteval.mock_openai import MockOpenAI
from tests.acceptance.test_worker_service import EVALUATION, SLOW, ready
from tests.support.fault_evaluation import check, let_go, submitted, write_evaluation
from tests.support.project import Project, wait_until
from tests.support.silent_connections import SilentProxy

FAILING = EVALUATION.replace('    tell("end")\n', '    tell("end")\n    assert text not in ("text 3", "text 33")\n')


@pytest.fixture
def served(project: Project, redis_url: str) -> Project:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", EVALUATION)
    return project


def address(project: Project, path: str) -> str:
    """The address that a service prints."""
    found = wait_until(lambda: re.search(rf"listening on (http://\S+){path}", project.output()), what="an address")
    return str(found[1])


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def figures(text: str) -> dict[str, float]:
    """The values of Prometheus's text format by name and labels."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def settled(url: str, name: str, value: float) -> dict[str, float]:
    """The figures at an address, as soon as one of them has a value. Worker processes write theirs a moment later."""

    def found() -> dict[str, float] | None:
        now = figures(get(url)[1])
        return now if now.get(name) == value else None

    now: dict[str, float] = wait_until(found, what=f"{name} of {value:g}")
    return now


# A model is loaded once there is the file "go".
LOADING = EVALUATION.replace(
    '    tell("+model")',
    """
    import os, time
    while not os.path.exists("go"):
        time.sleep(0.05)
    tell("+model")
""",
)


def test_health_and_readiness_and_a_taken_port(served: Project) -> None:
    served.write("eval_it.py", LOADING)
    with served.started("worker", ".", "--processes", "1", "--health-port", "0") as service:
        base = address(served, "/health")
        wait_until(lambda: json.loads(get(f"{base}/health")[1])["processes"] == 1, what="its worker process")
        status, text = get(f"{base}/health")
        alive = json.loads(text)
        assert (status, alive["service"]) == (200, "worker")
        assert set(alive) >= {"doteval", "python"}
        # It is loading a model: alive, but not ready.
        assert get(f"{base}/ready")[0] == 503
        served.write("go", "")
        wait_until(lambda: get(f"{base}/ready")[0] == 200, what="a ready service")
        (process,) = json.loads(get(f"{base}/ready")[1])["processes"]
        assert process["state"] == "ready"
        assert get(f"{base}/nowhere")[0] == 404
        port = base.rpartition(":")[2]
        refused = served.run("worker", ".", "--health-port", port, check=2)
        assert f"port {port}" in refused.stderr
        assert "Traceback" not in refused.stderr
        (served.path / "go").unlink()
        os.kill(process["pid"], signal.SIGKILL)
        wait_until(lambda: get(f"{base}/ready")[0] == 503, what="a service without processes")
        served.write("go", "")
        wait_until(lambda: get(f"{base}/ready")[0] == 200, what="a service that is ready again")
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0


def test_connections_that_go_silent_are_made_anew(project: Project, redis_url: str) -> None:
    """tests/faults/test_silent_broker.py has more of this, with the time that it takes by default."""
    write_evaluation(project, rows=40, seconds=0.1, held=10)
    with SilentProxy(int(redis_url.rpartition(":")[2].partition("/")[0])) as proxy:
        project.environment["DOTEVAL_BROKER"] = f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=1.5"
        with submitted(project, 1) as submitter:
            wait_until(lambda: project.done() == 10, what="the first rows")
            assert proxy.silence() > 4
            wait_until(lambda: "the broker answers again" in project.output(), what="new connections")
            let_go(project)
            assert submitter.wait(120) == 0, project.output()
    assert "has not answered this worker process for" in project.output()
    check(project, "x", rows=40, in_flight=0)


def test_metrics_of_a_service_agree_with_the_store(served: Project) -> None:
    served.write("eval_it.py", FAILING)
    with served.started("worker", ".", "--processes", "2", "--metrics-port", "0"):
        base = address(served, "/metrics")
        wait_until(lambda: ready(served, 2), what="two ready worker processes")
        served.run("submit", "eval_it.py", "--experiment", "one")
        for process in served.json("status", "one")["workers"]:
            assert process["versions"].keys() >= {"python", "doteval", "celery", "pytest"}
        found = settled(f"{base}/metrics", "doteval_worker_row_seconds_count", 300)
        counts = served.json("status", "one")["evaluations"][0]["rows"]
        assert found['doteval_worker_rows_total{status="done"}'] == counts["done"] == 298
        assert found['doteval_worker_rows_total{status="failed"}'] == counts["failed"] == 2
        assert found['doteval_worker_errors_total{class="evaluation"}'] == 2
        settled(f"{base}/metrics", "doteval_worker_rows_in_flight", 0)
        seconds = sum(record.outcome.seconds for record in served.records("one")["eval_remote"])
        assert found["doteval_worker_row_seconds_sum"] == pytest.approx(seconds)
        assert 1 <= found["doteval_worker_commit_seconds_count"] <= 300
        # Counts of a process stay after it has ended.
        victim = served.workers()[0].info.pid
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(served.workers()) == 3, what="the next worker process")
        assert figures(get(f"{base}/metrics")[1])['doteval_worker_rows_total{status="done"}'] == 298


def test_rows_in_flight_are_counted(served: Project) -> None:
    served.write("eval_it.py", SLOW)
    with served.started("worker", ".", "--processes", "1", "--metrics-port", "0", "--concurrency", "7"):
        base = address(served, "/metrics")
        wait_until(lambda: ready(served, 1), what="a ready worker process")
        served.run("submit", "eval_it.py", "--experiment", "one", "--detach")

        def in_flight() -> bool:
            return figures(get(f"{base}/metrics")[1]).get("doteval_worker_rows_in_flight") == 7

        wait_until(in_flight, what="seven rows in flight")


def test_metrics_of_the_store(served: Project) -> None:
    served.write("eval_it.py", FAILING)
    with served.started("worker", ".", "--processes", "1"):
        served.run("submit", "eval_it.py", "--experiment", "one")
    with served.started("metrics", "--port", "0") as exporter:
        found = wait_until(lambda: re.search(r"http://\S+/metrics", served.output()), what="an address")
        numbers = figures(get(found[0])[1])
        labels = 'evaluation="eval_it.py::eval_remote",experiment="one"'
        by_status = {
            status: numbers[f'doteval_rows{{evaluation="eval_it.py::eval_remote",experiment="one",status="{status}"}}']
            for status in ("done", "failed", "skipped", "pending")
        }
        assert by_status == {"done": 298, "failed": 2, "skipped": 0, "pending": 0}
        assert numbers[f'doteval_errors{{class="evaluation",{labels}}}'] == 2
        assert numbers['doteval_evaluations{status="completed"}'] == 1
        assert numbers["doteval_oldest_pending_seconds"] == 0
        assert numbers["doteval_broker_up"] == 1
        assert numbers['doteval_queued_row_tasks{queue="doteval"}'] == 0
        assert numbers['doteval_loads{experiment="one",fixture="model"}'] == 1
        pending = 'doteval_rows{evaluation="eval_it.py::eval_remote",experiment="two",status="pending"}'
        served.run("submit", "eval_it.py", "--experiment", "two", "--detach")
        assert figures(get(found[0])[1])[pending] == 300
        served.run("cancel", "two")
        assert figures(get(found[0])[1])[pending] == 0
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(120) == 0


CALLS = """
from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range(80)])
async def eval_calls(number, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", temperature=0, messages=[{"role": "user", "content": str(number % 60)}]
    )
    return Result(exact_match(bool(reply.choices[0].message.content), True))
"""


def test_metrics_of_model_calls_agree_with_the_store(served: Project) -> None:
    """Tokens, cost, cache hits and time waited for rate limits, from the service and from the store's exporter."""
    served.write("eval_calls.py", CALLS)
    served.write("prices.toml", '[models."m"]\nprompt = 100.0\ncompletion = 1000.0\n')
    served.environment["DOTEVAL_PRICES"] = "prices.toml"
    with MockOpenAI(rate_limit=20) as server:
        served.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "any"}
        with served.started("worker", ".", "--processes", "2", "--metrics-port", "0"):
            base = address(served, "/metrics")
            served.run("submit", "eval_calls.py", "--experiment", "one", "--cache", "--rows-per-task", "2")
            counted = settled(f"{base}/metrics", 'doteval_worker_cache_total{model="m",outcome="hit"}', 20)
    (model,) = served.json("usage", "one")["models"]
    used = model["spent"]
    assert (used["requests"], used["cache_misses"], used["cache_hits"]) == (80, 60, 20)
    assert used["cost"] > 0.01
    assert used["waited"] > 0.5
    with served.started("metrics", "--port", "0"):
        found = wait_until(lambda: re.search(r"(http://\S+/metrics) for", served.output()), what="an address")
        stored = figures(get(found[1])[1])
    one = 'experiment="one"'
    for name, of_service, of_store in (
        ("prompt_tokens", 'tokens_total{kind="prompt",model="m"}', f'tokens{{{one},kind="prompt",model="m"}}'),
        (
            "completion_tokens",
            'tokens_total{kind="completion",model="m"}',
            f'tokens{{{one},kind="completion",model="m"}}',
        ),
        ("cache_hits", 'cache_total{model="m",outcome="hit"}', f'cache_hits{{{one},model="m"}}'),
        ("cache_misses", 'cache_total{model="m",outcome="miss"}', f'cache_misses{{{one},model="m"}}'),
        ("cost", 'cost_dollars_total{model="m"}', f'cost_dollars{{{one},model="m"}}'),
        ("waited", 'limit_wait_seconds_total{model="m"}', f'limit_wait_seconds{{{one},model="m"}}'),
    ):
        assert counted[f"doteval_worker_{of_service}"] == pytest.approx(used[name]), name
        assert stored[f"doteval_{of_store}"] == pytest.approx(used[name]), name


def test_worker_processes_are_recycled_after_many_rows(served: Project) -> None:
    with served.started("worker", ".", "--processes", "1", "--max-rows-per-process", "100"):
        served.run("submit", "eval_it.py", "--experiment", "one")
        counts = served.counts()

        def left() -> list[str]:
            return [worker.reason or "" for worker in served.workers() if worker.left_at is not None]

        wait_until(lambda: len(left()) >= 2, what="the end of two processes")
        recycled = left()
    assert (counts["begin"], counts["end"]) == (300, 300)
    assert len(recycled) <= 3
    assert all(re.fullmatch(r"recycled after 1\d\d rows", reason) for reason in recycled), recycled
    assert served.counts()["-model"] == served.counts()["+model"] == len(served.workers())


def test_worker_processes_are_recycled_when_they_use_much_memory(served: Project) -> None:
    served.write("eval_it.py", SLOW)
    with served.started("worker", ".", "--processes", "1", "--max-memory-per-process", "1"):
        served.run("submit", "eval_it.py", "--experiment", "one", "--samples", "100")
        wait_until(lambda: len(served.workers()) >= 2, what="the next process")
        reason = served.workers()[0].reason
    counts = served.counts()
    assert (counts["begin"], counts["end"]) == (100, 100)
    assert re.fullmatch(r"recycled with \d+ MB of memory", reason or "")


def test_a_drained_service_exits_and_others_continue(served: Project, broker_url: str) -> None:
    served.environment["DOTEVAL_BROKER"] = broker_url
    served.write("eval_it.py", SLOW)
    with (
        served.started("worker", ".", "--processes", "2", "--name", "old") as old,
        served.started("worker", ".", "--processes", "1", "--name", "new") as new,
    ):
        wait_until(lambda: ready(served, 3), what="three ready worker processes")
        served.run("submit", "eval_it.py", "--experiment", "one", "--detach")
        wait_until(lambda: served.done() >= 20, what="20 rows")
        assert "old-1@" in served.run("drain", "old").stdout
        assert old.wait(120) == 0
        assert new.poll() is None
        served.run("watch", "one")
        assert served.run("drain", "old", check=2).stderr.count("new-1@") == 1
    counts = served.counts()
    assert (counts["begin"], counts["end"], counts["-model"]) == (300, 300, 3)


ORPHANS = EVALUATION.replace(
    '    tell("begin")\n',
    """    tell("begin")
    if text == "text 5":
        import subprocess
        # Its parent exits at once, so process 1 becomes its parent.
        subprocess.run(["sh", "-c", "sleep 0.1 & echo $! > orphan.pid"], check=True)
""",
)


def test_a_service_runs_as_process_1_of_a_container(served: Project) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may make a process namespace")
    served.write("eval_it.py", ORPHANS)
    command = [sys.executable, "-m", "doteval", "worker", ".", "--processes", "1"]
    with served.started(program=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *command]) as outer:
        wait_until(lambda: ready(served, 1), what="a ready worker process")
        served.run("submit", "eval_it.py", "--experiment", "one")
        pid = int(Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text())
        orphan = (served.path / "orphan.pid").read_text().strip()
        # A zombie keeps its entry in /proc.
        seen = Path(f"/proc/{pid}/root/proc/{orphan}")
        wait_until(lambda: not seen.exists(), what="the orphan's end")
        os.kill(pid, signal.SIGTERM)
        assert outer.wait(120) == 0
    assert served.counts()["-model"] == 1
    assert len(served.records("one")["eval_remote"]) == 300

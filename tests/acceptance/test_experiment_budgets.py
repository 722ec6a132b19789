"""Budgets of experiments: usage equals what the server counted, and calls in flight do not exceed a budget."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from doteval.mock_openai import MockOpenAI
from doteval.store import WorkerState
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

ROWS = 120
WORKERS, CONCURRENCY = 2, 5
IN_FLIGHT = WORKERS * CONCURRENCY
LOCAL = ("--workers", str(WORKERS), "--concurrency", str(CONCURRENCY))
CELERY = Path(sys.executable).with_name("celery")
# Where it does not matter that several processes share the budget.
ONE = ("--workers", "1", "--concurrency", str(IN_FLIGHT))

ASYNC = """
from pathlib import Path
from doteval import Result, foreach
from doteval.evaluators import exact_match

@foreach("number", [(number,) for number in range(ROWS)], retries=0)
async def eval_it(number, async_openai_client):
    reply = await async_openai_client.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"number {number:05} [[reply:one two three]]"}]
    )
    if number % 4 == 0 and Path("broken").exists():
        raise ValueError("not this one")
    return Result(exact_match(1, 1), prompt=number, model_response=reply.choices[0].message.content)
""".replace("ROWS", str(ROWS))

SYNC = ASYNC.replace("async def", "def").replace("await ", "").replace("async_openai", "openai")

# With a function-scoped fixture.
WITH_FUNCTION_FIXTURE = ASYNC.replace("async_openai_client)", "async_openai_client, tmp_path)", 1)


# Session, module and function fixtures call the model, and so does the row.
FIXTURES = """
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

def ask(client, text):
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])

@pytest.fixture(scope="session")
def warm(openai_client):
    ask(openai_client, "one")
    return openai_client

@pytest.fixture(scope="module")
def primed(warm):
    ask(warm, "one two")
    return warm

@pytest.fixture
def own(primed):
    ask(primed, "one two three")
    yield primed
    ask(primed, "one two three four")

@foreach("number", [(number,) for number in range(20)])
def eval_it(number, own):
    ask(own, f"number {number}")
    return Result(exact_match(1, 1), prompt=number)
"""


@pytest.fixture
def server(project: Project) -> Iterator[MockOpenAI]:
    with MockOpenAI(latency=0.05) as server:
        project.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-none"}
        yield server


def sent(server: MockOpenAI) -> tuple[int, int]:
    """Requests, and prompt and completion tokens, as the server counted them."""
    stats = server.stats()
    return stats["requests"], stats["prompt_tokens"] + stats["completion_tokens"]


def spent(project: Project) -> tuple[int, int]:
    """The same as `doteval usage` reports them."""
    (model,) = project.json("usage", "x")["models"]
    return model["spent"]["attempts"], model["spent"]["prompt_tokens"] + model["spent"]["completion_tokens"]


def shown(project: Project) -> dict[str, Any]:
    (evaluation,) = project.json("show", "x")["evaluations"]
    return dict(evaluation)


def assert_whole(project: Project) -> None:
    """Every row has exactly one result, and it is done."""
    records = project.records("x")["eval_it"]
    assert Counter(record.row.index for record in records) == Counter(range(ROWS))
    assert {record.outcome.status for record in records} == {"done"}
    assert shown(project)["status"] == "completed"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(SYNC, id="sync"),
        pytest.param(
            WITH_FUNCTION_FIXTURE, id="function fixture", marks=pytest.mark.slow("the test of calls in fixtures")
        ),
    ],
)
def test_sync_rows_and_rows_with_fixtures_stop_at_the_budget(project: Project, server: MockOpenAI, source: str) -> None:
    project.write("eval_it.py", source)
    project.run("submit", "eval_it.py", "--experiment", "x", *LOCAL, "--max-requests", "40", check=6)
    requests, _ = sent(server)
    assert 40 <= requests < 40 + IN_FLIGHT
    assert spent(project) == sent(server)
    assert shown(project)["rows"]["pending"] == ROWS - requests


def test_an_account_without_money_ends_the_experiment(project: Project, server: MockOpenAI) -> None:
    # From row 20 on the server says that the account is empty.
    broke = ASYNC.replace("[[reply:one", "{'[[status:402]]' * (number > 19 and Path('broke').exists())} [[reply:one")
    project.write("eval_it.py", broke)
    project.write("broke", "")
    for name in ("submit", "pytest"):
        if name == "submit":
            done = project.run("submit", "eval_it.py", *LOCAL, "--experiment", name, check=6)
        else:
            done = run_pytest(project, "--experiment", name)
            assert done.returncode == 1
        (found,) = project.json("show", name)["evaluations"]
        rows = found["rows"]
        assert found["status"] == "cancelled"
        assert found["reason"].startswith("the account of the model API has no money left: APIStatusError: ")
        # Each row in flight has asked once.
        assert 1 <= rows["failed"] <= IN_FLIGHT
        assert rows["pending"] == ROWS - rows["done"] - rows["failed"] >= ROWS - 20 - IN_FLIGHT
        assert sent(server)[0] == rows["done"] + rows["failed"]
        assert found["error_classes"] == {"quota": rows["failed"]}
        assert "the account of the model API has no money left" in done.stdout + done.stderr
        server.reset()
    (project.path / "broke").unlink()
    project.run("submit", "eval_it.py", *LOCAL, "--experiment", "submit")
    (found,) = project.json("show", "submit")["evaluations"]
    assert (found["status"], found["rows"]["done"]) == ("completed", ROWS)


def test_local_workers_stop_at_the_budget_and_continue_with_a_larger_one(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", ASYNC)
    submit = ("submit", "eval_it.py", "--experiment", "x", *LOCAL)
    done = project.run(*submit, "--max-requests", "40", check=6)
    requests, _ = sent(server)
    # A process may begin a row while it counts those in flight.
    assert 40 <= requests <= 40 + WORKERS
    assert spent(project) == sent(server)
    reason = f"the budget is used up: {requests} of 40 requests"
    assert f"experiment 'x': {reason}; {ROWS - requests} rows are pending" in done.stderr
    assert_shown("budget-used-up", done.stderr)
    found = shown(project)
    assert (found["status"], found["reason"]) == ("cancelled", reason)
    assert found["rows"] == {"total": ROWS, "done": requests, "failed": 0, "skipped": 0, "pending": ROWS - requests}
    status = project.run("status", "x").stdout
    assert reason in status
    assert f"{ROWS - requests} rows pending: submit again with a larger budget to go on" in status

    done = project.run(*submit, "--max-requests", "40", check=6)
    assert reason in done.stderr
    assert "worker process" not in done.stdout
    assert sent(server)[0] == requests

    project.run(*submit, "--max-requests", "80", check=6)
    assert 80 <= sent(server)[0] <= 80 + WORKERS
    project.run(*submit)
    assert sent(server)[0] == ROWS
    assert spent(project) == sent(server)
    assert_whole(project)
    # No rows are left, so the smaller budget does not matter.
    project.run(*submit, "--max-requests", "10")


@pytest.mark.parametrize(
    "detach",
    [
        pytest.param(False, id="followed", marks=pytest.mark.slow("the detached submission")),
        pytest.param(True, id="detached"),
    ],
)
def test_a_service_stops_at_the_budget_with_row_tasks_in_its_queue(
    project: Project, server: MockOpenAI, redis_url: str, detach: bool
) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", ASYNC)
    submit = ("submit", "eval_it.py", "--experiment", "x", "--rows-per-task", "7", *(["--detach"] if detach else []))
    with project.started("worker", ".", "--processes", str(WORKERS), "--concurrency", str(CONCURRENCY)):
        wait_until(lambda: sum(worker.state == "ready" for worker in project.workers()) >= 2, what="two workers")
        # All row tasks are in the queue at once.
        project.run(*submit, "--max-tokens", "320", check=0 if detach else 6)
        if detach:
            done = project.run("watch", "x", check=6)
            assert "the budget is used up" in done.stderr
        requests, tokens = sent(server)
        assert 320 <= tokens < 320 + IN_FLIGHT * tokens / requests
        assert requests < ROWS / 2
        assert spent(project) == (requests, tokens)
        found = shown(project)
        assert found["reason"] == f"the budget is used up: {tokens:,} of 320 tokens"
        assert found["rows"]["pending"] == ROWS - requests
        project.run(*submit, "--max-tokens", "320", check=6)
        assert sent(server)[0] == requests

        project.run(*submit)
        project.run("watch", "x")
    assert sent(server)[0] == ROWS
    assert spent(project) == sent(server)
    assert_whole(project)


@pytest.mark.faults
@pytest.mark.parametrize("supervised", [True, False])
def test_what_a_killed_process_had_reserved_is_free_again(
    project: Project, server: MockOpenAI, redis_url: str, supervised: bool
) -> None:
    project.environment |= {"DOTEVAL_BROKER": redis_url, "DOTEVAL_CONCURRENCY": str(CONCURRENCY)}
    project.write(
        "eval_it.py", "import asyncio\n" + ASYNC.replace("    reply", "    await asyncio.sleep(0.5)\n    reply")
    )

    def ready() -> list[WorkerState]:
        return [each for each in project.workers() if each.left_at is None and each.state == "ready"]

    def holder() -> WorkerState | None:
        """A worker process that has reserved a part of the budget."""
        with project.store() as store:
            experiment = store.experiments.find("x")
            every = store.budget_shares.look(experiment, 0).reserved
            return next((w for w in ready() if store.budget_shares.look(experiment, w.id).reserved < every), None)

    with ExitStack() as started:
        if supervised:
            started.enter_context(project.started("worker", ".", "--processes", "2"))
        else:
            for name in ("one", "two"):
                program = [str(CELERY), "-A", "doteval.worker", "worker", "-n", name]
                started.enter_context(project.started(program=program))
        wait_until(lambda: len(ready()) == 2, what="two worker processes")
        submit = ("submit", "eval_it.py", "--experiment", "x", "--rows-per-task", "7")
        submitter = started.enter_context(project.started(*submit, "--max-requests", "40"))
        wait_until(lambda: sent(server)[0] >= 10, what="10 requests")
        killed = wait_until(holder, what="a reservation")
        os.kill(killed.info.pid, signal.SIGKILL)
        assert submitter.wait(120) == 6
    requests = sent(server)[0]
    (model,) = project.json("usage", "x")["models"]
    # The requests in flight in the killed process are counted once its journal is read.
    assert 40 <= model["spent"]["attempts"] <= 40 + 2 * CONCURRENCY
    assert requests <= model["spent"]["attempts"] <= requests + CONCURRENCY
    assert "the budget is used up" in shown(project)["reason"]


def test_rows_that_run_again_count_again(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", ASYNC)
    (project.path / "broken").touch()
    project.run("submit", "eval_it.py", "--experiment", "x", *ONE, "--max-requests", str(ROWS + 1))
    failed = shown(project)["rows"]["failed"]
    assert failed == ROWS / 4
    (project.path / "broken").unlink()
    # The budget of the submission still holds, and one request of it is left.
    project.run("retry", "x", *ONE, check=6)
    assert ROWS + 1 <= sent(server)[0] < ROWS + 1 + IN_FLIGHT
    assert "the budget is used up" in project.run("retry", "x", *ONE, check=6).stderr
    project.run("retry", "x", *ONE, "--max-requests", str(ROWS + 20), check=6)
    assert ROWS + 20 <= sent(server)[0] < ROWS + 20 + IN_FLIGHT
    assert spent(project) == sent(server)
    project.run("retry", "x", *ONE, "--max-requests", "1000")
    assert sent(server)[0] == ROWS + failed
    assert_whole(project)


def test_a_budget_in_dollars_uses_the_price_table(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", ASYNC)
    submit = ("submit", "eval_it.py", "--experiment", "x", *ONE, "--max-cost", "0.2")
    project.write("prices.toml", '[models."another"]\nprompt = 1.0\n')
    project.environment["DOTEVAL_PRICES"] = "prices.toml"
    done = project.run(*submit, check=6)
    assert "the budget of $0.2000 cannot be kept: no price is known for m" in done.stderr
    assert sent(server)[0] <= IN_FLIGHT
    project.run("delete", "x", "--yes")

    server.reset()
    project.write("prices.toml", '[models."m"]\nprompt = 100.0\ncompletion = 1000.0\n')
    done = project.run(*submit, check=6)
    stats = server.stats()
    cost = (stats["prompt_tokens"] * 100 + stats["completion_tokens"] * 1000) / 1_000_000
    assert 0.2 <= cost <= 0.2 + 2 * cost / stats["requests"]
    assert f"the budget is used up: ${cost:.4f} of $0.2000" in done.stderr


def test_calls_of_fixtures_count(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", FIXTURES)
    submit = ("submit", "eval_it.py", "--experiment", "x", "--workers", "1")
    project.run(*submit, "--max-requests", "10", check=6)
    assert 10 <= sent(server)[0] <= 14
    assert spent(project) == sent(server)
    project.run("delete", "x", "--yes")

    server.reset()
    project.run(*submit)
    assert sent(server)[0] == 20 * 3 + 2
    assert spent(project) == sent(server)
    # Calls of function fixtures are attributed to their row; those of shared fixtures to the evaluation.
    assert [usage.attempts for record in project.records("x")["eval_it"] for usage in record.outcome.usage] == [3] * 20
    ((evaluation,), (worker,)) = (project.json("usage", "x", "--by", by)[f"{by}s"] for by in ("evaluation", "worker"))
    for group in (evaluation, worker):
        (model,) = group["models"]
        assert (model["kept"]["attempts"], model["spent"]["attempts"]) == (60, 62)


def test_calls_of_shared_fixtures_count_for_the_first_of_two_experiments(
    project: Project, server: MockOpenAI, redis_url: str
) -> None:
    project.environment["DOTEVAL_BROKER"] = redis_url
    project.write("eval_it.py", FIXTURES)
    with project.started("worker", ".", "--processes", "1"):
        wait_until(lambda: [worker.state for worker in project.workers()] == ["ready"], what="a worker")
        assert sent(server)[0] == 1
        project.run("submit", "eval_it.py", "--experiment", "x")
        assert spent(project) == sent(server)
        assert sent(server)[0] == 62
        server.reset()
        project.run("submit", "eval_it.py", "--experiment", "y")
        (model,) = project.json("usage", "y")["models"]
        assert model["spent"]["attempts"] == sent(server)[0] == 60


def run_pytest(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    return project.commands.run(
        "pytest",
        ["eval_it.py", "--experiment", "x", "--concurrent", "5", *arguments],
        directory=project.path,
        environment=project.process_environment(),
        timeout=90,
    )


def test_plain_pytest_stops_at_the_budget(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", ASYNC)
    done = run_pytest(project, "--max-requests", "40")
    requests, _ = sent(server)
    assert 40 <= requests <= 41
    assert done.returncode == 1
    assert f"the budget is used up: {requests} of 40 requests; {ROWS - requests} rows are pending" in done.stdout
    assert shown(project)["status"] == "cancelled"
    assert run_pytest(project, "--max-requests", "40").returncode == 1
    assert sent(server)[0] == requests
    # A budget that the last row uses up is enough.
    assert run_pytest(project, "--max-requests", str(ROWS)).returncode == 0
    assert spent(project) == sent(server) == (ROWS, sent(server)[1])
    assert_whole(project)


def test_calls_of_fixtures_count_in_plain_pytest_too(project: Project, server: MockOpenAI) -> None:
    project.write("eval_it.py", FIXTURES)
    assert run_pytest(project).returncode == 0
    assert sent(server)[0] == 20 * 3 + 2
    assert spent(project) == sent(server)

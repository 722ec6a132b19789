"""Batch mode on worker processes: each request is paid once, whatever fails, expires or is killed."""

from __future__ import annotations

from typing import Any

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.batch_runs import check_paid_once, finish, kill_workers, use
from tests.support.commands import Commands
from tests.support.project import Project, wait_until
from tests.support.troubleshooting import assert_shown

# Three calls a row in two rounds, one of them a judge's, streams, and a sync evaluation of another model. `{row}` makes
# each prompt a new one.
EVALUATIONS = """
import asyncio
from doteval import Score, foreach
from doteval.evaluators import llm_judge

def message(*parts):
    return [{"role": "user", "content": " ".join(map(str, parts))}]

async def ask(client, *parts):
    reply = await client.chat.completions.create(model="m", messages=message(*parts))
    return reply.choices[0].message.content

@foreach("row", [(number,) for number in range(ROWS)])
async def eval_rounds(row, async_openai_client):
    first = await ask(async_openai_client, "one", row)
    second, judged = await asyncio.gather(
        ask(async_openai_client, "two", row, first), llm_judge(async_openai_client, "m")(f"three {row} {first}")
    )
    return Score("ok", bool(second and judged.metadata["reply"]), ["mean"])

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
    use(project, mock)
    return 3 * rows + 3 * (rows // 10)


def check(project: Project, mock: MockOpenAI, requests: int, rows: int) -> None:
    check_paid_once(project, mock, requests, {"eval_rounds": rows, "eval_stream": rows // 10})


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
    calls = [(call["source"], call["judge"]) for call in evaluation["calls"]]
    assert sorted(calls) == [("batch", False), ("batch", False), ("batch", True)]
    used = {(each["model"], each["judge"]): each["kept"]["requests"] for each in project.json("usage", "x")["models"]}
    assert used == {("e", False): 2, ("m", False): 2 * rows, ("m", True): rows, ("other", False): 4}
    assert all(each["batch"] for each in project.json("usage", "x")["models"])


# What holds a row up until the test lets it go is a fault of its client's batches.
OF_COMMANDS = """
import uuid
from pathlib import Path
import pytest
from doteval import Score, batch, foreach
from doteval.clients.openai import openai_client

def ask(prompt, key="of-all", fault=""):
    client = openai_client(api_key=f"sk-a-key-{key}", default_headers={"x-mock-fault": fault})
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": prompt}])
    return Score("ok", True, ["mean"])

def break_(number):
    if number == 1 and Path("broken").exists():
        raise ValueError("a mistake")

@pytest.mark.doteval(batch=True)
@foreach("number", [(0,), (1,), (2,)])
def eval_marked(number):
    score = ask(f"marked {number} {Path('broken').exists()}")
    break_(number)
    return score

@batch("number", [(0,), (1,)])
def eval_lists(number):
    return [ask(f"list {number}") for _ in number]

@foreach("number", [(0,), (1,), (2,)])
def eval_retried(number):
    break_(number)
    return ask(f"retried {number}")

@foreach("number", [(0,), (1,)])
def eval_late(number):
    return ask(f"late {number}", fault="batch/stall")

@foreach("number", [(0,)])
def eval_too_late(number):
    return ask(f"too late {number}", fault="batch/stall")

@foreach("number", [(0,)])
def eval_other_each_time(number):
    return ask(f"{uuid.uuid4()}")

@foreach("number", [(0,), (1,)])
def eval_cancelled(number):
    holds = Path("holds").exists()
    return ask(f"cancelled {number}", "that-holds" if holds else "that-is-fast", "batch/stall" if holds else "")
"""


def rows_of(project: Project, experiment: str) -> dict[str, int]:
    (evaluation,) = project.json("show", experiment)["evaluations"]
    return {name: count for name, count in evaluation["rows"].items() if name in ("done", "failed") and count}


def error_of(project: Project, experiment: str) -> str:
    (evaluation,) = project.json("show", experiment, "--row", "0")["evaluations"]
    return str(evaluation["records"][0]["error"]["message"])


@pytest.fixture
def commands(client_commands: Commands) -> Commands:
    return client_commands


@pytest.mark.slow("batches that take seconds each; unit/submission/test_batch_mode.py has the rules")
def test_what_commands_say_of_batches(project: Project, redis_url: str) -> None:
    """Marks, retries, deadlines, cancelled experiments, and rows that ask something else each time."""
    project.write("eval_it.py", OF_COMMANDS)
    (project.path / "broken").touch()
    (project.path / "holds").touch()
    project.environment["DOTEVAL_BROKER"] = redis_url

    def submit(name: str, *options: str) -> None:
        project.run("submit", f"eval_it.py::eval_{name}", "--experiment", name, *options)

    with (
        MockOpenAI(batch_latency=0.1) as mock,
    ):
        use(project, mock)
        with project.started("worker", ".", "--processes", "1"):
            submit("late", "--batch", "--batch-deadline", "1s", "--then", "live", "--detach")
            submit("too_late", "--batch", "--batch-deadline", "1s", "--detach")
            submit("other_each_time", "--batch", "--detach")
            submit("cancelled", "--batch", "--detach")

            submit("marked")
            assert rows_of(project, "marked") == {"done": 2, "failed": 1}
            submit("retried")
            assert rows_of(project, "retried") == {"done": 2, "failed": 1}
            (project.path / "broken").unlink()
            project.run("retry", "marked")
            project.run("retry", "retried", "--batch")
            for name in ("marked", "retried"):
                assert rows_of(project, name) == {"done": 3}
            assert sources(project, "marked") == ["batch"] * 3
            assert sources(project, "retried") == ["live", "batch", "live"]

            both = ("eval_it.py::eval_lists", "eval_it.py::eval_retried")
            mixed = project.run("submit", *both, "--experiment", "mixed", "--batch", check=2)
            assert "not run: eval_it.py::eval_lists cannot run in batch mode" in mixed.stdout + mixed.stderr
            assert "Write it with @foreach" in mixed.stderr
            assert sources(project, "mixed") == ["batch"] * 3

            wait_until(lambda: progress(project, "cancelled")["batches"]["open"], what="a batch at the provider")
            assert_shown("waiting-for-batches", project.run("status", "cancelled").stdout)
            assert "cancel 1 batch at the provider" in project.run("cancel", "cancelled").stdout
            (project.path / "holds").unlink()
            submit("cancelled", "--batch", "--batch-deadline", "10m")
            assert sources(project, "cancelled") == ["batch"] * 2

            for name in ("late", "too_late", "other_each_time"):
                project.run("watch", name, check=None)
        assert sources(project, "late") == ["live"] * 2
        assert "within 1.00 s (--batch-deadline)" in error_of(project, "too_late")
        assert "this row asks something else each time it runs" in error_of(project, "other_each_time")
        # Two of `retried`, and those of `late`.
        assert mock.stats()["requests"] == 4
        assert mock.stats()["batch"]["replies"] == 4 + 1 + 3 + 2 + 5


def progress(project: Project, experiment: str) -> dict[str, Any]:
    (evaluation,) = project.json("status", experiment)["evaluations"]
    return dict(evaluation)


def sources(project: Project, experiment: str) -> list[str]:
    """Where the reply to the only call of each row came from."""
    with project.store() as store:
        (evaluation,) = store.evaluations.of(store.experiments.find(experiment))
        return [
            call.source.value
            for index in range(evaluation.counts.total)
            for call in store.calls.of_row(evaluation.id, index, last=True)
        ]

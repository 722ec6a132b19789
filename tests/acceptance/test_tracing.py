"""Traces of a submission: the spans of all worker processes are in one trace, as a real collector gets them."""

from __future__ import annotations

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.commands import Commands
from tests.support.project import Project
from tests.support.traces import collector

ROWS = 6
KEY = "sk-planted-4d1e9a"
INTERNAL, CLIENT, ERROR = 1, 3, 2

# The first row of each process waits until the other one has a row too.
EVALUATION = """
import os, time
from pathlib import Path
from doteval import Result, Score, foreach

@foreach("number", [(number,) for number in range(ROWS)])
def eval_it(number, openai_client):
    Path(f"began-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while len(list(Path().glob("began-*"))) < 2:
        assert time.monotonic() < deadline, "one worker process has no row"
        time.sleep(0.02)
    asked = [{"role": "user", "content": f"a private prompt {number}"}]
    reply = openai_client.chat.completions.create(model="m", messages=asked)
    if number == 0:
        raise ValueError("a private message")
    text = reply.choices[0].message.content
    return Result(Score("odd", number % 2 == 1, ["mean"]), prompt=asked, model_response=text)
"""


@pytest.mark.parametrize("status", [200, 500])
def test_pytest_says_that_a_collector_does_not_take_spans(project: Project, status: int) -> None:
    project.write(
        "eval_it.py",
        "from doteval import Score, foreach\n"
        "@foreach('number', [(1,), (2,)])\n"
        "def eval_it(number):\n"
        "    return Score('odd', number % 2 == 1, ['mean'])\n",
    )
    with collector() as receiver:
        receiver.status = status
        # Each span is sent at once, while pytest captures the log.
        project.environment |= {**receiver.environment(), "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "1"}
        ran = project.commands.run(
            "pytest",
            ("eval_it.py", "--experiment", "x"),
            directory=project.path,
            environment=project.process_environment(),
            timeout=90,
        )
    assert ran.stdout.count("traces are not complete") == (0 if status == 200 else 1)


@pytest.fixture
def commands(client_commands: Commands) -> Commands:
    return client_commands


def test_two_worker_processes_send_the_spans_of_one_trace(project: Project) -> None:
    project.write("eval_it.py", EVALUATION.replace("ROWS", str(ROWS)))
    with MockOpenAI() as server, collector() as receiver:
        project.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY, **receiver.environment()}
        submit = ("submit", "eval_it.py", "--experiment", "x", "--workers", "2", "--rows-per-task", "1")
        project.run(*submit, "--concurrency", "1")
        spans, bodies, stats = receiver.spans, b"".join(receiver.bodies), server.stats()
    by_id = {span.id: span for span in spans}
    assert len(by_id) == len(spans) == 1 + 2 * ROWS
    assert len({span.trace for span in spans}) == 1
    (command,) = receiver.named("doteval submit")
    rows, calls = receiver.named("row eval_it"), receiver.named("chat m")
    assert command.parent == ""
    assert {span.parent for span in rows} == {command.id}
    assert {span.parent for span in calls} == {span.id for span in rows}
    assert {span.kind for span in rows} == {INTERNAL}
    assert {span.kind for span in calls} == {CLIENT}
    assert len({span.resource["process.pid"] for span in rows}) == 2
    assert all(by_id[call.parent].resource == call.resource for call in calls)
    shown = {span.attributes["doteval.row.index"]: span for span in rows}
    assert sorted(shown) == list(range(ROWS))
    assert (shown[0].status, shown[0].attributes["error.type"], shown[0].events) == (ERROR, "ValueError", [])
    for number in range(1, ROWS):
        (event,) = shown[number].events
        label = "true" if number % 2 else "false"
        assert event == (
            "gen_ai.evaluation.result",
            {
                "gen_ai.evaluation.name": "odd",
                "gen_ai.evaluation.score.value": float(number % 2),
                "gen_ai.evaluation.score.label": label,
            },
        )
    assert sum(call.attributes["gen_ai.usage.output_tokens"] for call in calls) == stats["completion_tokens"]
    assert b"private" not in bodies
    assert KEY.encode() not in bodies

"""What docs/troubleshooting.md shows of rows that fail, and of figures that surprise."""

from __future__ import annotations

import pytest

from doteval.mock_openai import MockOpenAI
from tests.support.cli import CommandLine
from tests.support.project import Project
from tests.support.troubleshooting import assert_shown

EVALUATIONS = """
import asyncio
import time

import openai
import pytest
from doteval import Score, foreach
from doteval.evaluators import exact_match

ROWS = [("a", "b"), ("c", "d")]
seen = []

async def ask(**options):
    client = openai.AsyncOpenAI(max_retries=0, **options)
    await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])

@foreach("q,a", ROWS)
def eval_broken(q, a):
    return exact_match(reply_of(q), a)

@foreach("q,a", ROWS)
async def eval_no_key(q, a):
    await ask()

@foreach("q,a", ROWS)
async def eval_unreachable(q, a):
    await ask(api_key="x", base_url="http://127.0.0.1:9/v1")

@foreach("q,a", ROWS)
async def eval_unauthorized(q, a):
    await ask(api_key="x", default_headers={"x-mock-fault": "status:401"})

@foreach("q,a", ROWS)
async def eval_limited(q, a):
    await ask(api_key="x", default_headers={"x-mock-fault": "status:429"})

@foreach("q,a", ROWS)
def eval_wrong_return(q, a):
    return q == a

@foreach("q,a", ROWS)
def eval_nan(q, a):
    return Score("similarity", float("nan"), ["mean"])

@foreach("q,a", [{"q": "one", "answer": "1"}])
def eval_none(q, a):
    return exact_match(q, a)

@foreach("q,a", ROWS)
async def eval_loop(q, a):
    asyncio.run(asyncio.sleep(0))

@foreach("i", [(i,) for i in range(20)])
def eval_shares(i):
    seen.append(i)
    return Score("ok", True, ["accuracy"])

@foreach("i", [(i,) for i in range(20)])
def eval_depends(i):
    return Score("fresh", not seen, ["accuracy"])

@foreach("q,a", ROWS)
def eval_slow(q, a):
    time.sleep(60)
"""


@pytest.fixture
def doteval_(capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(capsys)


def test_rows_that_fail_and_figures_that_surprise(
    project: Project, mock_openai: MockOpenAI, doteval_: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    project.environment["OPENAI_BASE_URL"] = mock_openai.base_url
    project.write("eval_it.py", EVALUATIONS)

    def evaluate(experiment: str, *options: str) -> str:
        arguments = ["eval_it.py", "--experiment", experiment, "--max-retries", "0", "-p", "no:cacheprovider", *options]
        return project.commands.run(
            "pytest", arguments, directory=project.path, environment=project.process_environment(), timeout=90
        ).stdout

    shown = evaluate("all", "-k", "not slow")
    assert_shown("every-row-fails", shown)
    assert_shown("missing-api-key", shown)
    assert_shown("model-server-unreachable", shown)
    assert_shown("refused-by-the-api", shown)
    assert_shown("too-many-requests", shown)
    assert_shown("invalid-result", shown)
    assert_shown("nan-scores", shown)
    assert_shown("column-of-none", shown)
    assert_shown("running-event-loop", shown)
    assert_shown("row-timeout", evaluate("some", "-k", "slow or depends", "--row-timeout", "0.2"))

    storage = ("--storage", str(project.path / ".doteval" / "doteval.db"))
    compared = doteval_("compare", "some", "all", "--evaluation", "eval_depends", *storage)
    assert_shown("results-differ", compared.out)
    missed = doteval_("watch", "all", "--fail-under", "eval_nan:similarity.mean=0.5", *storage)
    assert missed.code == 1
    assert_shown("threshold-missed", missed.out + missed.err)
    errors = doteval_("show", "all", "--evaluation", "wrong_return", "--errors", *storage).out
    assert "not a Result or a Score. Return Result(score, prompt=...)" in " ".join(errors.split())

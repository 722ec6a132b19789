"""`doteval submit --estimate`: a sample runs, and the other rows once the user has agreed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.core.states import EvaluationEnd
from doteval.mock_openai import MockOpenAI
from tests.support.commands import Commands
from tests.support.json_shapes import undocumented
from tests.support.project import Project, wait_until

ROWS = 100
SAMPLE = 10

EVALUATION = """
import pytest
from doteval import Result, foreach
from doteval.evaluators import exact_match

@pytest.fixture(scope="session")
def model(async_openai_client):
    tell("loaded")
    return async_openai_client

@foreach("number", [(number,) for number in range(ROWS)])
async def eval_it(number, model):
    tell("ran")
    reply = await model.chat.completions.create(
        model="m", messages=[{"role": "user", "content": f"number {number} [[reply:{'word ' * (1 + number % 7)}]]"}]
    )
    return Result(exact_match(1, 1))
""".replace("ROWS", str(ROWS))

PRICES = """
batch = 0.5
[models.m]
prompt = 1000
completion = 2000
"""


@pytest.fixture
def commands(client_commands: Commands) -> Commands:
    return client_commands


@pytest.fixture(params=[0.01])
def server(project: Project, request: pytest.FixtureRequest) -> Iterator[MockOpenAI]:
    with MockOpenAI(latency=request.param) as server:
        project.environment |= {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": "sk-none"}
        yield server


def submit(project: Project, *options: str, check: int | None = 0) -> str:
    done = project.run("submit", "eval_it.py", "--experiment", "x", "--workers", "2", *options, check=check)
    return done.stdout + done.stderr


def test_only_the_sample_runs_until_somebody_agrees_and_models_are_loaded_once(
    project: Project, server: MockOpenAI
) -> None:
    project.write("eval_it.py", EVALUATION)
    project.environment["DOTEVAL_PRICES"] = str(project.write("prices.toml", PRICES))
    # Nobody answers: the rows that have run stay.
    said = submit(project, "--max-retries", "2", "--estimate", str(SAMPLE), check=6)
    assert "Run the other 90 rows? [y/N]" in said
    # With its other options, which may say how the rows are run.
    assert "To run the others: doteval submit eval_it.py --experiment x --workers 2 --max-retries 2\n" in said
    assert "standard input ended without an answer" in said
    assert project.counts()["ran"] == SAMPLE
    with project.store() as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        ran = [record.row.index for record in store.results.records(evaluation.id)]
    assert evaluation.status is EvaluationStatus.CANCELLED
    assert evaluation.end_cause is EvaluationEnd.ESTIMATED
    # Drawn from the whole dataset, not its beginning.
    assert len(ran) == SAMPLE
    assert max(ran) > ROWS / 2

    # Of the rows that are left.
    document = project.json("submit", "eval_it.py", "--experiment", "x", "--estimate", str(SAMPLE), "--estimate-only")
    assert undocumented(document, "submit --estimate-only") == []
    assert (document["rows"], document["rows_left"]) == (SAMPLE, ROWS - 2 * SAMPLE)
    assert document["amounts"]["requests"]["rest"] == ROWS - 2 * SAMPLE
    cost = document["amounts"]["cost"]
    assert cost["rest_interval"][0] <= cost["rest"] <= cost["rest_interval"][1]
    assert document["amounts"]["batch_cost"]["rest"] == pytest.approx(cost["rest"] / 2)

    loaded = project.counts()["loaded"]
    said = submit(project, "--estimate", str(SAMPLE), "--yes")
    assert "cost with --batch" in said
    assert project.counts()["ran"] == server.stats()["requests"] == ROWS
    # Two worker processes ran the sample and all other rows.
    assert project.counts()["loaded"] - loaded <= 2
    with project.store() as store:
        (evaluation,) = store.evaluations.of(store.experiments.find("x"))
        assert evaluation.status is EvaluationStatus.COMPLETED


@pytest.mark.parametrize("server", [0.2], indirect=True)
def test_workers_of_a_broker_run_no_further_row_when_the_submitter_is_killed(
    project: Project, server: MockOpenAI, redis_url: str
) -> None:
    project.write("eval_it.py", EVALUATION)
    project.environment["DOTEVAL_BROKER"] = redis_url
    with project.started("worker", ".", "--processes", "1"):
        with project.started("submit", "eval_it.py", "--experiment", "x", "--estimate", "5") as submitter:
            wait_until(lambda: project.counts()["ran"])
            submitter.kill()
        wait_until(lambda: project.done() == 5)
        # It ends without a word, and the same command goes on.
        done = project.run("submit", "eval_it.py", "--experiment", "x", "--estimate", "5", "--yes")
    assert "Estimate from 5 rows" in done.stdout
    assert project.counts()["ran"] == ROWS

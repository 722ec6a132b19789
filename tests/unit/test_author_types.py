"""Type checkers in an author's file: what is right passes in strict mode, what is misspelt is found where it stands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RIGHT = """
from collections.abc import Sequence

import pytest
from openai import AsyncOpenAI, OpenAI

from doteval import Batch, ForEach, Result, Score, batch, compare, foreach, load, run
from doteval.clients.fast import chat
from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.concurrency import Adaptive, SlidingWindow
from doteval.evaluators import (
    evaluator,
    exact_match,
    judge_panel,
    llm_judge,
    llm_pairwise,
    llm_rubric,
    numeric_match,
    regex_match,
)
from doteval.metrics import Metric, accuracy, f1, mean, metric, pass_at_k
from doteval.metrics.reducers import reducer
from doteval.mock_openai import MockOpenAI


@evaluator
def shorter(response: str, limit: int = 100) -> bool:
    return len(response) < limit


@evaluator(metrics=mean())
async def brevity(response: str, *, limit: int = 100) -> float:
    return limit / len(response)


class Judge:
    @evaluator
    def fits(self, response: str) -> bool:
        return bool(response)


@metric
def above(threshold: float = 0.5) -> Metric:
    def calculate(scores: Sequence[float]) -> float:
        return sum(score > threshold for score in scores) / len(scores)

    return calculate


@foreach("text,expected", [("a", "b")])
async def eval_texts(text: str, expected: str) -> Result:
    plain: Score = shorter(text, limit=3)
    named: Score = shorter(text, limit=3, name="other")
    bound: Score = Judge().fits(text)
    awaited: Score = await brevity(text, limit=3)
    above(threshold=0.2)
    return Result(plain, named, bound, awaited, exact_match(text, expected, name="same"), prompt=text)


@pytest.fixture(scope="session")
def client() -> OpenAI:
    return openai_client(base_url="http://localhost/v1", api_key="any", max_retries=2, cache=True, timeout=3)


@pytest.fixture(scope="session")
def async_client() -> AsyncOpenAI:
    return async_openai_client(requests_per_minute=600, default_headers={"a": "b"})


@foreach("text", "texts.csv", retries=2, concurrency=SlidingWindow(10), storage="other.db")
async def eval_judged(text: str, client: OpenAI, async_client: AsyncOpenAI) -> Result:
    judge = llm_judge(client, "model", criteria="It is polite.", options={"seed": 1})
    polite: Score = judge(text, question="?", name="polite")
    panel = judge_panel(judge, llm_judge(client, "other"))
    awaited: Score = await llm_judge(async_client, "model")(text, expected="b")
    rubric: tuple[Score, ...] = await llm_rubric(async_client, "model", {"short": "It is short."})(text)
    better: Score = llm_pairwise(client, "model")(text, "other", question="?")
    reply = chat(instrument(client, cache=True), model="m", messages=[])
    scores = [polite, awaited, better, *rubric, numeric_match(reply["a"], 3), regex_match(text, "a")]
    return Result(*scores, panel(text), model_response=reply, metadata={"a": 1})


each = ForEach(retries=3, concurrency=Adaptive())


@each("text", ["a"])
def eval_shared(text: str) -> Score:
    return exact_match(text, "a")


@batch("text", ["a"], batch_size=4)
def eval_batch(text: list[str]) -> list[Score]:
    return [eval_shared(each) for each in text]


@Batch(concurrency=2)("text", ["a"])
def eval_batches(text: list[str]) -> list[Result]:
    return [Result(score) for score in eval_batch(text)]


def results() -> None:
    with MockOpenAI(latency=0.1) as server:
        print(server.base_url)
    summary = run(eval_shared, experiment="a", samples=3, model=str.upper).summary()
    print(summary["exact_match"], load("a").experiment, compare("a", "b").verdict)
    print(accuracy()([True]), f1()([("a", "b")]), pass_at_k(2), mean()([1.0]), reducer("mean")([1]))
"""

# Each line that ends with "# wrong" has a mistake.
WRONG = """
from openai import OpenAI

from doteval import ForEach, Result, Score, batch, compare, foreach, load, run
from doteval.clients.openai import async_openai_client, instrument, openai_client
from doteval.concurrency import SlidingWindow
from doteval.evaluators import evaluator, exact_match, llm_judge, llm_rubric
from doteval.metrics import Metric, accuracy, mean, metric, pass_at_k
from doteval.metrics.reducers import reducer


@evaluator
def shorter(response: str, limit: int = 100) -> bool:
    return len(response) < limit


@evaluator(metrics=mean())
async def brevity(response: str) -> float:
    return 1 / len(response)


@metric
def above(threshold: float = 0.5) -> Metric:
    return lambda scores: sum(score > threshold for score in scores)


shorter("a", limt=3)  # wrong
shorter(3)  # wrong
shorter("a").valu  # wrong
brevity("a").value  # wrong
brevity(respnse="a")  # wrong
above(treshold=3)  # wrong
exact_match("a", expectd="b")  # wrong
Result(shorter("a"), model_respons="a")  # wrong
Result("a")  # wrong
Result(shorter("a")).scroes  # wrong
Score("a", True, metric=())  # wrong
Score("a", True).vlaue  # wrong


@foreach("text", ["a"], concurency=3)  # wrong
def eval_first(text: str) -> Score:
    return exact_match(text, "a")


@batch("text", ["a"], bach_size=3)  # wrong
def eval_second(text: list[str]) -> list[Score]:
    return []


@foreach("text", ["a"])
def eval_third(text: str, client: OpenAI) -> Score:
    judge = llm_judge(client, "model", critera="It is polite.")  # wrong
    judge = llm_judge(client, "model")
    judge(text, questoin="?")  # wrong
    judge(text).valeu  # wrong
    rubric = llm_rubric(client, "model", {"short": "It is short."}, verdict={})  # wrong
    rubric = llm_rubric(client, "model", {"short": "It is short."})
    rubric(txt=text)  # wrong
    client.chat.completion  # wrong
    return exact_match(text, "a").vaule  # wrong


ForEach(retires=3)  # wrong
eval_third(txt="a")  # wrong
openai_client(bas_url="http://localhost/v1")  # wrong
async_openai_client(max_retrys=3)  # wrong
openai_client(cache="sometimes")  # wrong
openai_client().get_stat()  # wrong
instrument(openai_client(), cach=True)  # wrong
SlidingWindow(size=3)  # wrong
run(eval_third, experiment=3)  # wrong
run(eval_third).sumary()  # wrong
load("a").experimnet  # wrong
compare("a", "b").verdcit  # wrong
accuracy(threshold=1)  # wrong
pass_at_k(n=2)  # wrong
mean().calcluation  # wrong
reducer(nam="mean")  # wrong
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("author")
    (directory / "eval_right.py").write_text(RIGHT)
    (directory / "eval_wrong.py").write_text(WRONG)
    return directory


def expected() -> set[tuple[str, int]]:
    lines = enumerate(WRONG.splitlines(), 1)
    return {("eval_wrong.py", number) for number, line in lines if line.endswith("# wrong")}


def checked(directory: Path, *command: str) -> str:
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.slow("a type checker reads the packages that doteval imports; make check runs mypy over doteval")
def test_mypy_finds_mistakes_and_nothing_else(files: Path) -> None:
    found = checked(files, "mypy", "--strict", "--no-error-summary", "eval_right.py", "eval_wrong.py")
    errors = re.findall(r"^(\S+):(\d+): error:", found, re.MULTILINE)
    assert {(name, int(line)) for name, line in errors} == expected(), found


@pytest.mark.slow("a type checker reads the packages that doteval imports; make check runs mypy over doteval")
def test_pyright_finds_mistakes_and_nothing_else(files: Path) -> None:
    settings = {"typeCheckingMode": "strict", "include": ["eval_right.py", "eval_wrong.py"]}
    (files / "pyrightconfig.json").write_text(json.dumps(settings))
    found = json.loads(checked(files, "pyright", "--outputjson", "--pythonpath", sys.executable))
    errors = {
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in found["generalDiagnostics"]
        if each["severity"] == "error"
    }
    assert errors == expected(), found


def test_dir_shows_the_public_names() -> None:
    import doteval

    assert dir(doteval) == sorted(doteval.__all__)
    assert "run" in dir(doteval)
    for name in dir(doteval):
        assert getattr(doteval, name) is not None

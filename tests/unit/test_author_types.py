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

from doteval import Result, Score, foreach
from doteval.evaluators import evaluator, exact_match
from doteval.metrics import Metric, mean, metric


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
"""

# Each line that ends with "# wrong" has a mistake.
WRONG = """
from doteval import Result
from doteval.evaluators import evaluator, exact_match
from doteval.metrics import Metric, mean, metric


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

"""Options that say how batches are sent, where nothing asks for batches."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from doteval.core.exit_codes import UNEXPECTED
from doteval.store import Store
from tests.support.cli import CommandLine

EVALUATIONS = """
import pytest
from doteval import Score, foreach

@foreach("number", [(1,)])
def eval_plain(number):
    return Score("ok", True, ["mean"])

@pytest.mark.doteval(batch=True)
@foreach("number", [(1,)])
def eval_marked(number):
    return Score("ok", True, ["mean"])

@pytest.mark.doteval(batch=False)
@foreach("number", [(1,)])
def eval_never(number):
    return Score("ok", True, ["mean"])
"""
# No command gets as far as its broker.
BROKER = ("--broker", "redis://127.0.0.1:1/0")
_number = itertools.count()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # One process imports a module of a name once.
    name = f"eval_batch_options_{next(_number)}.py"
    (tmp_path / name).write_text(EVALUATIONS)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--batch-linger", "60s"), "--batch-linger needs --batch"),
        (("--batch-tokens", "5", "--batch-deadline", "2h"), "--batch-deadline and --batch-tokens need --batch"),
        (("--batch-deadline", "2h", "--then", "fail"), "--batch-deadline and --then need --batch"),
        (("--then", "live"), "--then needs --batch-deadline"),
        (("--batch", "--then", "live"), "--then needs --batch-deadline"),
    ],
)
def test_they_are_refused(doteval_: CommandLine, file: str, options: tuple[str, ...], said: str) -> None:
    nodes = (f"{file}::eval_plain", f"{file}::eval_never")
    ran = doteval_("submit", *nodes, "--experiment", "x", *BROKER, *options)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())
    with Store.open(".doteval/doteval.db") as store:
        assert not store.experiments.overviews()


def test_a_mark_asks_for_batches_too(doteval_: CommandLine, file: str) -> None:
    ran = doteval_("submit", file, "--experiment", "x", *BROKER, "--batch-linger", "5s")
    assert "the broker" in ran.err
    assert ran.code not in (0, 2, UNEXPECTED)


def test_a_retry(doteval_: CommandLine, results: str) -> None:
    ran = doteval_("retry", "alpha", "--storage", results, "--batch-linger", "5s", *BROKER)
    assert ran.code == 2
    assert "--batch-linger needs --batch" in ran.err

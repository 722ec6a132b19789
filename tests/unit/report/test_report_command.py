"""`doteval report`: where it is written, in which format, and what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from doteval.report import page
from doteval.store import Store
from tests.support.cli import CommandLine
from tests.support.comparisons import FAILED, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "results.db")
    with Store.open(path) as store:
        add_experiment(store, "base", {"exact_match": [True] * 30})
        add_experiment(store, "new/1", {"exact_match": [True] * 10 + [FAILED] * 20})
    return path


def test_a_file_is_written(doteval_: CommandLine, storage: str, tmp_path: Path) -> None:
    ran = doteval_("report", "new/1", "--against", "base", "--storage", storage)
    assert (ran.code, ran.out) == (0, "")
    assert "Wrote new-1-report.html" in ran.err
    assert "Worse" in (tmp_path / "new-1-report.html").read_text(encoding="utf-8")
    limit = ("--fail-under", "exact_match.accuracy=0.9")
    ran = doteval_("report", "new/1", "-o", "report.md", "--storage", storage, "--json", *limit)
    document = json.loads(ran.out)
    assert (ran.code, document["file"], document["format"]) == (1, "report.md", "markdown")
    assert document["bytes"] == (tmp_path / "report.md").stat().st_size
    assert "under 0.9" in document["missed"][0]


def test_markdown_goes_to_stdout_or_to_the_file_that_is_named(
    doteval_: CommandLine, storage: str, tmp_path: Path
) -> None:
    ran = doteval_("report", "new/1", "--format", "markdown", "--storage", storage)
    assert ran.code == 0
    assert ran.out.startswith("# Evaluation report: <code>new/1</code>")
    assert doteval_("report", "new/1", "-o", "report.md", "--storage", storage).code == 0
    assert (tmp_path / "report.md").read_text(encoding="utf-8").startswith("# Evaluation report")
    page_out = doteval_("report", "new/1", "-o", "-", "--storage", storage).out
    assert page_out.startswith("<!DOCTYPE html>")


def test_a_missed_threshold_is_shown_and_ends_with_1(doteval_: CommandLine, storage: str) -> None:
    limits = ("--fail-under", "exact_match.accuracy=0.9", "--fail-if-worse", "base")
    ran = doteval_("report", "new/1", "--format", "markdown", "--storage", storage, *limits)
    assert ran.code == 1
    assert "under 0.9" in ran.err
    assert "--fail-under exact_match.accuracy=0.9\n--fail-if-worse base\n" in ran.out
    assert "Compared with <code>base</code>: **WORSE**" in ran.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nothing",), "no experiment named 'nothing'"),
        (("new/1", "--against", "nothing"), "no experiment named 'nothing'"),
        (("new/1", "--evaluation", "eval_z"), "'eval_z'"),
        (("new/1", "--json", "-o", "-"), "Name a file with -o"),
        (("new/1", "--json", "--format", "markdown"), "Name a file with -o"),
        (("new/1", "-o", "missing/report.html"), "cannot be written"),
    ],
)
def test_what_is_wrong_is_said(doteval_: CommandLine, storage: str, arguments: tuple[str, ...], said: str) -> None:
    ran = doteval_("report", *arguments, "--storage", storage)
    assert ran.code == 2
    assert said in ran.err


def test_the_extra_is_named_where_it_is_not_installed(
    doteval_: CommandLine, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page._environment.cache_clear()
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    ran = doteval_("report", "new/1", "--storage", storage)
    assert ran.code == 2
    assert "pip install 'doteval[report]'" in ran.err
    assert not list(tmp_path.glob("*.html"))
    assert doteval_("report", "new/1", "--format", "markdown", "--storage", storage).code == 0

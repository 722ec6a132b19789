"""`--junitxml` and `--github` of the commands that wait for rows: right also where the command fails."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from doteval.core.experiments import EvaluationStatus
from doteval.store import Store
from tests.support.cli import CommandLine
from tests.support.comparisons import FAILED, PENDING, add_experiment

pytestmark = pytest.mark.usefixtures("without_settings")

BEFORE = [True, True, False, True] * 50


@pytest.fixture
def ran(tmp_path: Path) -> str:
    with Store.open(str(tmp_path / "results.db")) as store:
        add_experiment(store, "base", {"right": BEFORE})
        worse = [right and row % 4 > 0 for row, right in enumerate(BEFORE)]
        add_experiment(store, "worse", {"right": worse})
        add_experiment(store, "worse", {"right": BEFORE}, name="eval_new")
        add_experiment(store, "cut", {"right": [*BEFORE[:-1], PENDING]}, status=EvaluationStatus.CANCELLED)
        add_experiment(store, "failed", {"right": [*BEFORE, FAILED]}, status=EvaluationStatus.FAILED)
        return store.url


def failures(path: Path) -> dict[str, str | None]:
    """The failure of each test case."""
    cases = ElementTree.parse(path).iter("testcase")
    return {case.attrib["name"]: case.findtext("failure") for case in cases}


@pytest.mark.parametrize("command", ["watch", "retry"])
def test_junit_files(doteval_: CommandLine, ran: str, tmp_path: Path, command: str) -> None:
    path = tmp_path / "reports" / "junit.xml"
    assert doteval_(command, "base", "--junitxml", str(path), "--storage", ran).code == 0
    assert failures(path) == {"eval_qa": None}
    found = doteval_(command, "worse", "--fail-if-worse", "base", "--junitxml", str(path), "--storage", ran)
    assert found.code == 1
    written = failures(path)
    assert str(written["eval_qa"]).startswith("eval_qa right.accuracy is WORSE (0.750 in the baseline, now 0.500, 95%")
    assert written["eval_new"] == "eval_new is not among the evaluations of base (--fail-if-worse base)"
    assert all(f"Failed: {failure}" in found.err for failure in written.values())
    options = ["--fail-under", "wrong.accuracy=1", "--fail-under", "eval_new:right.accuracy=0.8"]
    assert doteval_(command, "worse", *options, "--junitxml", str(path), "--storage", ran).code == 1
    written = failures(path)
    assert written["eval_qa"] is None
    assert "eval_new: right.accuracy is 0.750, under 0.8" in str(written["eval_new"])
    assert "no evaluation has this score" in str(written["thresholds"])


def test_an_evaluation_that_did_not_end_well_is_a_failure(doteval_: CommandLine, ran: str, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    assert doteval_("watch", "cut", "--junitxml", str(path), "--storage", ran).code == 0
    assert failures(path) == {"eval_qa": "evals/eval_qa.py::eval_qa is cancelled"}
    assert doteval_("watch", "failed", "--junitxml", str(path), "--storage", ran).code == 5
    assert failures(path) == {"eval_qa": "evals/eval_qa.py::eval_qa is failed"}


def test_a_file_of_an_earlier_command_does_not_stay(doteval_: CommandLine, ran: str, tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text("all is well")
    found = doteval_("submit", str(tmp_path / "eval_none.py"), "--junitxml", str(path), "--storage", ran)
    assert found.code == 2
    assert not path.exists()


def test_what_github_is_given(doteval_: CommandLine, ran: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = tmp_path / "repository" / "below"
    (below / "evals").mkdir(parents=True)
    (below / "evals" / "eval_qa.py").touch()
    monkeypatch.chdir(below)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(below.parent))
    summary, comment = tmp_path / "summary.md", tmp_path / "comment.md"
    summary.write_text("Of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    options = ["--github", "--github-comment", str(comment), "--storage", ran]
    found = doteval_("watch", "worse", "--fail-if-worse", "base", *options)
    assert found.code == 1
    commands = [line for line in found.out.splitlines() if line.startswith("::")]
    assert [line.partition("::eval")[0] for line in commands] == [
        "::error file=below/evals/eval_qa.py,title=eval_qa",
        "::error file=below/evals/eval_qa.py,title=eval_new",
    ]
    assert "right.accuracy is WORSE (0.750 in the baseline, now 0.500, 95%25 interval" in commands[0]
    body = comment.read_text()
    assert summary.read_text() == f"Of another step\n{body}\n"
    assert "## doteval: not passed" in body
    assert "### Compared with <code>base</code>: WORSE" in body
    assert "| <code>eval_qa</code> | <code>right.accuracy</code> | WORSE | 0.750 | 0.500 | -0.250 | -0.3" in body
    passed = doteval_("watch", "base", "--github", "--github-comment", "-", "--storage", ran)
    assert passed.code == 0
    assert "\n::" not in passed.out
    assert passed.out.endswith(summary.read_text().removeprefix(f"Of another step\n{body}\n").removesuffix("\n"))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert "GITHUB_STEP_SUMMARY is not set" in doteval_("retry", "base", "--github", "--storage", ran).err


@pytest.mark.parametrize("command", [("watch", "base"), ("retry", "base"), ("submit", "eval_x.py")])
def test_a_file_that_cannot_be_written_is_said_before_anything_runs(
    doteval_: CommandLine, ran: str, tmp_path: Path, command: tuple[str, str]
) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "junit.xml"):
        found = doteval_(*command, "--junitxml", str(place), "--storage", ran)
        assert found.code == 2
        assert str(place) in found.err
        assert found.out == ""
    if command[0] != "watch":
        assert doteval_(*command, "--junitxml", "x.xml", "--detach", "--storage", ran).code == 2
